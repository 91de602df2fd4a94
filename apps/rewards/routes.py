"""The rewards API: parse, ask the service, answer."""

from collections.abc import Mapping
from typing import Any

from flask import Response, current_app, jsonify

from apps.common.api import Blueprint
from apps.common.idempotency import Answer
from apps.common.wire import IdPageSchema, check_pool_id, check_user_id, integer_cursor
from apps.rewards import schemas
from apps.rewards.audits import RewardAudits
from apps.rewards.reads import RewardReads
from apps.rewards.service import RewardsService

blp = Blueprint("rewards", __name__, url_prefix="/v1", description="The reward index of a pool.")

Body = dict[str, Any]


@blp.post("/accruals")
@blp.arguments(schemas.AccrualBody)
@blp.response(201, schemas.Accrual)
@blp.alt_response(200, schema=schemas.Accrual, description="A replay.")
def post_accrual(body: Body) -> Response:
    """Spread a signed reward over all stake of a pool, or park it where there is none."""
    return _answer(_service().accrue(**body))


@blp.post("/parked/release")
@blp.arguments(schemas.ReleaseBody)
@blp.response(201, schemas.Accrual)
@blp.alt_response(200, schema=schemas.Accrual, description="A replay.")
def post_release(body: Body) -> Response:
    """Hand parked rewards to the positions of today."""
    return _answer(_service().release_parked(**body))


@blp.post("/stake-deltas")
@blp.arguments(schemas.StakeDeltasBody)
@blp.response(201, schemas.StakeDeltasAnswer)
@blp.alt_response(200, schema=schemas.StakeDeltasAnswer, description="All of them were known.")
def post_stake_deltas(body: Body) -> Response:
    """Change many positions, all or nothing."""
    return _answer(_service().change_stakes(**body))


@blp.post("/claims")
@blp.arguments(schemas.ClaimBody)
@blp.response(201, schemas.Claim)
@blp.alt_response(200, schema=schemas.Claim, description="A replay.")
def post_claim(body: Body) -> Response:
    """Move a user's whole pending wei, signed, into their stake."""
    return _answer(_service().claim(**body))


@blp.post("/claims/batch")
@blp.arguments(schemas.ClaimsBody)
@blp.response(201, schemas.ClaimsAnswer)
@blp.alt_response(200, schema=schemas.ClaimsAnswer, description="All of them were known.")
def post_claims(body: Body) -> Response:
    """Claim for many users, all or nothing."""
    return _answer(_service().claim_batch(**body))


@blp.get("/pools/<pool_id>")
@blp.response(200, schemas.Pool)
def get_pool(pool_id: str) -> Response:
    """A pool's index and sums; zeros for one that was never used."""
    return jsonify(_reads().pool(check_pool_id(pool_id)))


@blp.get("/positions/<user_id>")
@blp.arguments(schemas.PositionQuery, location="query")
@blp.response(200, schemas.Position)
def get_position(query: Body, user_id: str) -> Response:
    """A user's position with the pending reward as of now; zeros for an unknown user."""
    return jsonify(_reads().position(_pool_id(query), check_user_id(user_id)))


@blp.get("/positions")
@blp.arguments(schemas.PositionsQuery, location="query")
@blp.response(200, schemas.Positions)
def list_positions(query: Body) -> Response:
    """All positions of a pool in user order."""
    return jsonify(_reads().positions(_pool_id(query), after=query["after"], limit=query["limit"]))


@blp.get("/events")
@blp.arguments(schemas.EventsQuery, location="query")
@blp.response(200, schemas.Events)
def list_events(query: Body) -> Response:
    """The append-only log of a pool, oldest first; follow it by passing `next` as `after`."""
    after = integer_cursor(query["after"])
    return jsonify(
        _reads().events(
            _pool_id(query), after=after, limit=query["limit"], kind=query["kind"], user_id=query["user_id"]
        )
    )


@blp.post("/audits")
@blp.arguments(schemas.AuditBody)
@blp.response(201, schemas.Audit)
def post_audit(body: Body) -> tuple[Response, int]:
    """Replay the log and compare it with the tables; there must be no difference."""
    return jsonify(_audits().run(body["pool_id"])), 201


@blp.get("/audits")
@blp.arguments(IdPageSchema, location="query")
@blp.response(200, schemas.Audits)
def list_audits(query: Body) -> Response:
    """Audits, newest first."""
    return jsonify(_audits().list(after=query["after"], limit=query["limit"]))


def _answer(answer: Answer) -> Response:
    return answer.response()


def _service() -> RewardsService:
    return current_app.extensions["service"]  # type: ignore[no-any-return]


def _reads() -> RewardReads:
    return current_app.extensions["reads"]  # type: ignore[no-any-return]


def _audits() -> RewardAudits:
    return current_app.extensions["audits"]  # type: ignore[no-any-return]


def _pool_id(query: Mapping[str, Any]) -> str:
    return query["pool_id"] or _service().default_pool_id
