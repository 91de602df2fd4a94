"""The pool service: requests of users, and everything a BFF asks about them."""

from flask import Flask

from apps.common.celery_settings import broker_answers
from apps.common.service_app import build_app
from apps.pool.context import PoolContext, make_context, pool_publisher
from apps.pool.models import AuditEntry
from apps.pool.payouts.routes import blueprint as payouts
from apps.pool.quotes.routes import blueprint as quotes
from apps.pool.quotes.service import Quotes
from apps.pool.reports.routes import blueprint as reports
from apps.pool.routes import blueprint
from apps.pool.service import PoolService
from apps.pool.settings import PoolSettings, load_settings
from apps.pool.users.holds import Holds
from apps.pool.users.preferences import Users
from apps.pool.users.routes import blueprint as users
from apps.pool.webhooks.routes import blueprint as webhooks
from apps.pool.webhooks.service import Webhooks

BLUEPRINTS = [blueprint, users, reports, quotes, payouts, webhooks]


def create_app(settings: PoolSettings | None = None) -> Flask:
    settings = settings or load_settings()
    context = make_context(settings, pool_publisher(settings))
    app = build_app(
        "pool",
        blueprints=BLUEPRINTS,
        sessions=context.sessions,
        accepted_keys=settings.internal_keys,
        keys_file=settings.api_keys_file,
        audit_entries=AuditEntry,
        checks={"broker": lambda: broker_answers(settings.broker_url)},
    )
    serve(app, context)
    return app


def serve(app: Flask, context: PoolContext) -> None:
    """Give the app what its routes ask."""
    app.extensions["context"] = context
    app.extensions["service"] = PoolService(context)
    app.extensions["holds"] = Holds(context.sessions, context.settings.pool_id)
    app.extensions["quotes"] = Quotes(context)
    app.extensions["users"] = Users(context)
    app.extensions["webhooks"] = Webhooks(context)
