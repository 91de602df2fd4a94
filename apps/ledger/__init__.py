"""The ledger: append-only money movements and materialized balances."""

from flask import Flask
from sqlalchemy import Engine

from apps.common.append_only import Attempt, Proof
from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.ledger.models import AuditEntry
from apps.ledger.reads import LedgerReads
from apps.ledger.routes import blueprint
from apps.ledger.service import LedgerService
from apps.ledger.settings import LedgerSettings, load_settings


def append_only_proof(engine: Engine) -> Proof:
    """That no movement, key, refusal, checkpoint or audit can change, and a balance only along its movements."""
    return Proof(
        engine,
        {
            "message_keys": "message_id",
            "refusals": "code",
            "movements": "amount_wei",
            "system_checkpoints": "sum_wei",
            "audits": "ok",
            "audit_stretches": "digest",
        },
        more=(
            Attempt("DELETE FROM balances WHERE false"),
            # Passes every constraint, and follows no movement.
            Attempt(
                "UPDATE balances SET updated_at = now() WHERE pool_id = :probe",
                "INSERT INTO balances (pool_id, user_id) VALUES (:probe, :probe)",
            ),
        ),
        not_emptied=("balances",),
    )


def create_app(settings: LedgerSettings | None = None) -> Flask:
    """Build the app; raises `NotAppendOnly` where the database accepts changes to what was written."""
    settings = settings or load_settings()
    engine = make_engine(settings.database_url)
    sessions = make_sessions(engine)
    poster = make_engine(settings.database_url, autocommit=True)
    proof = append_only_proof(engine)
    proof.at_start()
    app = build_app(
        "ledger",
        blueprints=[blueprint],
        sessions=sessions,
        accepted_keys=settings.internal_keys,
        keys_file=settings.api_keys_file,
        audit_entries=AuditEntry,
    )
    app.extensions["service"] = LedgerService(sessions, poster, proof, settings.pool_id)
    app.extensions["reads"] = LedgerReads(sessions, settings.pool_id)
    return app
