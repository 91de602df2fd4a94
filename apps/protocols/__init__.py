"""Protocols: Lido calldata, chain reads, reconciliation."""

from flask import Flask

from apps.clients.ledger import LedgerClient
from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.protocols.chain import Chain
from apps.protocols.routes import blueprint
from apps.protocols.service import ProtocolsService
from apps.protocols.settings import ProtocolsSettings, load_settings


def create_app(settings: ProtocolsSettings | None = None) -> Flask:
    settings = settings or load_settings()
    sessions = make_sessions(make_engine(settings.database_url))
    ledger = LedgerClient(settings.ledger_url, settings.internal_keys[0], settings.http_timeout_sec)
    service = ProtocolsService(Chain(settings), sessions, ledger, settings.pool_id)
    app = build_app(
        "protocols",
        blueprints=[blueprint],
        sessions=sessions,
        accepted_keys=settings.internal_keys,
        checks={"chain": service.addresses.status, "history": service.history.doubts},
    )
    app.extensions["service"] = service
    return app
