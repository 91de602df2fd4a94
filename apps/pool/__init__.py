"""The pool service: requests of users, and everything a BFF asks about them."""

from flask import Flask

from apps.common.celery_settings import broker_answers
from apps.common.service_app import build_app
from apps.flow.hints import publisher
from apps.pool.context import make_context
from apps.pool.payouts.routes import blueprint as payouts
from apps.pool.routes import blueprint
from apps.pool.service import PoolService
from apps.pool.settings import PoolSettings, load_settings


def create_app(settings: PoolSettings | None = None) -> Flask:
    settings = settings or load_settings()
    context = make_context(settings, publisher(settings.broker_url, "pool"))
    app = build_app(
        "pool",
        blueprints=[blueprint, payouts],
        sessions=context.sessions,
        accepted_keys=settings.internal_keys,
        checks={"broker": lambda: broker_answers(settings.broker_url)},
    )
    app.extensions["service"] = PoolService(context)
    return app
