"""The reward index: what each position of a pool has earned, to the wei."""

from flask import Flask

from apps.common.database import make_engine, make_sessions
from apps.common.service_app import build_app
from apps.rewards.append_only import prove_append_only
from apps.rewards.audits import RewardAudits
from apps.rewards.reads import RewardReads
from apps.rewards.routes import blp
from apps.rewards.service import RewardsService
from apps.rewards.settings import RewardsSettings, load_settings


def create_app(settings: RewardsSettings | None = None) -> Flask:
    """Build the service; without `settings` they are read from the environment.

    Raises `LogNotAppendOnly` when the database would let the log be changed, and the driver's error when it cannot be
    asked: a service that cannot prove its log does not start.
    """
    settings = settings or load_settings()
    sessions = make_sessions(make_engine(settings.database_url))
    prove_append_only(sessions)
    app = build_app("rewards", blueprints=[blp], sessions=sessions, accepted_keys=settings.internal_keys)
    app.extensions["service"] = RewardsService(sessions, settings.reward_fee_bps, settings.pool_id)
    app.extensions["reads"] = RewardReads(sessions)
    app.extensions["audits"] = RewardAudits(sessions)
    return app
