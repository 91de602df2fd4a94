"""The relayer: the only holder of keys. Signs what its policy allows, broadcasts it, and follows it to its end."""

from functools import partial

from flask import Flask, request

from apps.common.celery_settings import HintPublisher, broker_answers
from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.ethereum.abilities import Abilities
from relayer.api.routes import blueprint
from relayer.api.service import RelayerService
from relayer.chain.snapshot import read_chain
from relayer.context import RelayerContext, make_context
from relayer.settings import RelayerSettings, load_settings
from relayer.store.models import AuditEntry
from relayer.waker import Waker

LOOPBACK = ("127.", "::1", "::ffff:127.")
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")


def create_app(settings: RelayerSettings | None = None) -> Flask:
    """Build the web app. It lists the signers' addresses, but it neither signs nor sends: the worker's pump does."""
    settings = settings or load_settings()
    context = make_context(settings, make_sessions(make_engine(settings.database_url)))
    hints = HintPublisher(settings.broker_url)
    abilities = Abilities(context.endpoints)
    no_key_set = not settings.api_keys
    app = build_app(
        "relayer",
        blueprints=[blueprint],
        sessions=context.sessions,
        accepted_keys=settings.api_keys,
        accepted_name="RELAYER_HTTP_API_KEY",
        keys_file=settings.api_keys_file,
        audit_entries=AuditEntry,
        checks={
            "chain": lambda: _chain_status(context, abilities),
            "broker": lambda: broker_answers(settings.broker_url),
        },
        status_path="/healthz",
        allow=lambda: no_key_set and _from_loopback(),
    )
    app.extensions["settings"] = settings
    wake = Waker(partial(hints.send, "relayer.tasks.pump", queue="relayer"))
    writer = make_engine(settings.database_url, autocommit=True)
    app.extensions["service"] = RelayerService(context, writer, wake)
    return app


def _from_loopback() -> bool:
    """Whether the call comes from this machine. A forwarded one does not: behind a proxy every caller has its address."""
    if any(name in request.headers for name in FORWARDED):
        return False
    return (request.remote_addr or "").startswith(LOOPBACK)


def _chain_status(context: RelayerContext, abilities: Abilities) -> dict[str, object]:
    """Whether a tick can read the chain: reads it as a tick does, for no messages."""
    snapshot = read_chain(context, ())
    return {"chain_id": context.settings.chain_id, "block_number": snapshot.head, "nodes": abilities.all()}
