"""The reward index: what each position of a pool has earned, to the wei."""

from flask import Flask

from apps.common.append_only import Proof
from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.rewards.models import AuditEntry
from apps.rewards.reads import RewardReads
from apps.rewards.routes import blueprint
from apps.rewards.service import RewardsService
from apps.rewards.settings import RewardsSettings, load_settings
from apps.rewards.settlement import Settlements


def create_app(settings: RewardsSettings | None = None) -> Flask:
    """Build the service; without `settings` they are read from the environment.

    Raises `NotAppendOnly` where the database would let the log be changed.
    """
    settings = settings or load_settings()
    engine = make_engine(settings.database_url)
    sessions = make_sessions(engine)
    proof = Proof(engine, {"reward_events": "claimed_wei", "audit_checkpoints": "state", "audit_stretches": "digest"})
    proof.at_start()
    app = build_app(
        "rewards",
        blueprints=[blueprint],
        sessions=sessions,
        accepted_keys=settings.internal_keys,
        keys_file=settings.api_keys_file,
        audit_entries=AuditEntry,
    )
    app.extensions["service"] = RewardsService(sessions, proof, settings.reward_fee_bps, Settlements(sessions))
    app.extensions["reads"] = RewardReads(sessions, settings.pool_id, settings.reward_fee_bps)
    return app
