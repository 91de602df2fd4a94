"""HTTP face of the reward index: parse and answer, nothing else."""

from flask import Response, current_app

from apps.clients.shapes.common import Audit, AuditPage, IdPageQuery, PoolQuery, SpanQuery
from apps.clients.shapes.rewards import (
    Accrual,
    Claim,
    ClaimsAnswer,
    Earnings,
    Events,
    EventsQuery,
    Fee,
    NewAccrual,
    NewAudit,
    NewClaim,
    NewClaimBatch,
    NewRelease,
    NewSettlement,
    NewStakeDeltas,
    Position,
    Positions,
    PositionsQuery,
    RewardPool,
    Settlement,
    StakeDeltasAnswer,
)
from apps.common.api import Blueprint
from apps.common.errors import AppendOnlyUnproven, InProgress
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema, check_pool_id, check_user_id
from apps.rewards.errors import (
    AmountOutOfRange,
    InsufficientParked,
    InsufficientStake,
    LossExceedsPosition,
    NothingStaked,
)
from apps.rewards.reads import RewardReads
from apps.rewards.service import RewardsService

blueprint = Blueprint("rewards", __name__, url_prefix="/v1", description="The reward index of a pool.")

WRITES = (AppendOnlyUnproven, InProgress, AmountOutOfRange)

_REPLAYED = {REPLAY_HEADER: "true"}


@blueprint.post("/accruals")
@blueprint.refuses(*WRITES)
@blueprint.arguments(schema_of(NewAccrual, BodySchema))
@blueprint.response(201, schema_of(Accrual))
@blueprint.alt_response(200, schema=schema_of(Accrual), description="A replay.")
def create_accrual(body: NewAccrual) -> Response:
    """Spread a signed reward over all stake of a pool, or park it where there is none."""
    return _service().accrue(body).response()


@blueprint.post("/parked/release")
@blueprint.ops
@blueprint.refuses(*WRITES, InsufficientParked, LossExceedsPosition, NothingStaked)
@blueprint.arguments(schema_of(NewRelease, BodySchema))
@blueprint.response(201, schema_of(Accrual))
@blueprint.alt_response(200, schema=schema_of(Accrual), description="A replay.")
def release_parked(body: NewRelease) -> Response:
    """Hand parked rewards to the positions of today."""
    return _service().release_parked(body).response()


@blueprint.post("/stake-deltas")
@blueprint.refuses(*WRITES, InsufficientStake)
@blueprint.arguments(schema_of(NewStakeDeltas, BodySchema))
@blueprint.response(201, schema_of(StakeDeltasAnswer))
@blueprint.alt_response(200, schema=schema_of(StakeDeltasAnswer), description="All of them were known.")
def create_stake_deltas(body: NewStakeDeltas) -> StakeDeltasAnswer | tuple[StakeDeltasAnswer, int, dict[str, str]]:
    """Change many positions, all or nothing."""
    answer = _service().change_stakes(body)
    return answer if answer.applied else (answer, 200, _REPLAYED)


@blueprint.post("/claims")
@blueprint.refuses(*WRITES, LossExceedsPosition)
@blueprint.arguments(schema_of(NewClaim, BodySchema))
@blueprint.response(201, schema_of(Claim))
@blueprint.alt_response(200, schema=schema_of(Claim), description="A replay.")
def create_claim(body: NewClaim) -> Response:
    """Move a user's whole pending wei, signed, into their stake."""
    return _service().claim(body).response()


@blueprint.post("/claims/batch")
@blueprint.refuses(*WRITES, LossExceedsPosition)
@blueprint.arguments(schema_of(NewClaimBatch, BodySchema))
@blueprint.response(201, schema_of(ClaimsAnswer))
@blueprint.alt_response(200, schema=schema_of(ClaimsAnswer), description="All of them were known.")
def create_claims(body: NewClaimBatch) -> ClaimsAnswer | tuple[ClaimsAnswer, int, dict[str, str]]:
    """Claim for many users, all or nothing."""
    answer = _service().claim_batch(body)
    return answer if answer.claimed else (answer, 200, _REPLAYED)


@blueprint.get("/pools/<pool_id>")
@blueprint.response(200, schema_of(RewardPool))
def get_reward_pool(pool_id: str) -> RewardPool:
    """A pool's index and sums; zeros for one that was never used."""
    return _reads().pool(check_pool_id(pool_id))


@blueprint.get("/fee")
@blueprint.response(200, schema_of(Fee))
def get_fee() -> Fee:
    """The company's part of gains, as this service was started with."""
    return _reads().fee()


@blueprint.get("/positions/<user_id>")
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Position))
def get_position(query: PoolQuery, user_id: str) -> Position:
    """A user's position with the pending reward as of now; zeros for an unknown user."""
    return _reads().position(query.pool_id, check_user_id(user_id))


@blueprint.get("/positions/<user_id>/earnings")
@blueprint.arguments(schema_of(SpanQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Earnings))
def get_earnings(query: SpanQuery, user_id: str) -> Earnings:
    """What a user earned over a span, day by day, and at which yearly rate."""
    return _reads().earnings(query, check_user_id(user_id))


@blueprint.get("/positions")
@blueprint.arguments(schema_of(PositionsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Positions))
def list_positions(query: PositionsQuery) -> Positions:
    """All positions of a pool in user order."""
    return _reads().positions(query)


@blueprint.get("/events")
@blueprint.arguments(schema_of(EventsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Events))
def list_reward_events(query: EventsQuery) -> Events:
    """The append-only log of a pool, oldest first; follow it by passing `next` as `after`."""
    return _reads().events(query)


@blueprint.post("/settlements")
@blueprint.refuses(AppendOnlyUnproven)
@blueprint.arguments(schema_of(NewSettlement, BodySchema))
@blueprint.response(200, schema_of(Settlement))
def continue_settlement(body: NewSettlement) -> Settlement:
    """Go on with a loss that is being settled; asked again and again it comes to its end."""
    return _service().settle(body.pool_id)


@blueprint.post("/audits")
@blueprint.arguments(schema_of(NewAudit, BodySchema))
@blueprint.response(201, schema_of(Audit))
def create_audit(body: NewAudit) -> Audit:
    """Replay the log and compare it with the tables; there must be no difference."""
    return _service().audit(body.pool_id, full=body.full)


@blueprint.get("/audits")
@blueprint.arguments(schema_of(IdPageQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(AuditPage))
def list_audits(query: IdPageQuery) -> AuditPage:
    """Audits, newest first."""
    return _reads().audits(query)


def _service() -> RewardsService:
    service: RewardsService = current_app.extensions["service"]
    return service


def _reads() -> RewardReads:
    reads: RewardReads = current_app.extensions["reads"]
    return reads
