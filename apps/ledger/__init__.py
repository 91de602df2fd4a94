"""The ledger: append-only money movements and materialized balances."""

from flask import Flask

from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.ledger.routes import blueprint
from apps.ledger.service import LedgerService
from apps.ledger.settings import LedgerSettings, load_settings


def create_app(settings: LedgerSettings | None = None) -> Flask:
    settings = settings or load_settings()
    sessions = make_sessions(make_engine(settings.database_url))
    app = build_app("ledger", blueprints=[blueprint], sessions=sessions, accepted_keys=settings.internal_keys)
    app.extensions["settings"] = settings
    app.extensions["service"] = LedgerService(sessions)
    return app
