"""HTTP face of the pool: parse and answer, nothing else."""

from flask import current_app, request

from apps.clients.base import CallFailed
from apps.clients.shapes import pool as shapes
from apps.clients.shapes.common import PoolQuery
from apps.clients.shapes.walk import (
    Decision,
    MetricsQuery,
    NewRelease,
    NewResolution,
    ProtocolMetricPage,
    Resolution,
    ResolutionPage,
    ResolutionsQuery,
    Walk,
)
from apps.common.api import Blueprint
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import MESSAGE_ID, MESSAGE_ID_RULE, BodySchema, QuerySchema, check_user_id
from apps.pool.errors import (
    AlreadyDecided,
    AmountTooLarge,
    AmountTooSmall,
    BatchHasEffect,
    BatchNotMatching,
    HaltDiffers,
    InsufficientBalance,
    ItemBooked,
    LaterRelease,
    NotCancellable,
    NotHalted,
    NotRetryable,
    PayoutNotMatching,
    RequestRejected,
    SecondPersonNeeded,
    UserOnHold,
)
from apps.pool.service import PoolService, Wanted
from apps.pool.states import RequestKind

Created = tuple[shapes.Request, int, dict[str, str]]
Said = tuple[Resolution, int, dict[str, str]]

blueprint = Blueprint("pool", __name__, url_prefix="/v1", description="Stakes, unstakes, reward claims and their life.")

# What every new request may meet.
NEW = (LaterRelease, RequestRejected, UserOnHold)
LOCATION = {"Location": {"description": "Where the request is read.", "schema": {"type": "string"}}}


@blueprint.post("/stakes")
@blueprint.refuses(*NEW, InsufficientBalance)
@blueprint.arguments(schema_of(shapes.NewStake, BodySchema))
@blueprint.response(201, schema_of(shapes.Request), headers=LOCATION)
@blueprint.alt_response(200, schema=schema_of(shapes.Request), description="A replay.", headers=LOCATION)
def create_stake(body: shapes.NewStake) -> Created:
    """Stake a user's available ETH: reserves it now, and batches it with others'."""
    return _create(RequestKind.STAKE, body)


@blueprint.post("/unstakes")
@blueprint.refuses(*NEW, AmountTooLarge, AmountTooSmall, InsufficientBalance)
@blueprint.arguments(schema_of(shapes.NewUnstake, BodySchema))
@blueprint.response(201, schema_of(shapes.Request), headers=LOCATION)
@blueprint.alt_response(200, schema=schema_of(shapes.Request), description="A replay.", headers=LOCATION)
def create_unstake(body: shapes.NewUnstake) -> Created:
    """Unstake an amount, or everything ("max"): pending reward is settled first."""
    return _create(RequestKind.UNSTAKE, body)


@blueprint.post("/reward-claims")
@blueprint.refuses(*NEW, InsufficientBalance)
@blueprint.arguments(schema_of(shapes.NewRewardClaim, BodySchema))
@blueprint.response(201, schema_of(shapes.Request), headers=LOCATION)
@blueprint.alt_response(200, schema=schema_of(shapes.Request), description="A replay.", headers=LOCATION)
def create_reward_claim(body: shapes.NewRewardClaim) -> Created:
    """Add a user's pending reward to what the user has staked."""
    return _create(RequestKind.REWARD_CLAIM, body)


@blueprint.get("/requests")
@blueprint.arguments(schema_of(shapes.RequestsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.RequestPage))
def list_requests(query: shapes.RequestsQuery) -> shapes.RequestPage:
    """Requests, newest first."""
    return _service().reads.requests(query)


@blueprint.get("/requests/<request_id>")
@blueprint.response(200, schema_of(shapes.Request))
def get_request(request_id: str) -> shapes.Request:
    """One request with its timeline, batch, transactions and next step."""
    return _service().reads.request(request_id)


@blueprint.post("/requests/<request_id>/cancel")
@blueprint.refuses(NotCancellable)
@blueprint.response(200, schema_of(shapes.Request))
def cancel_request(request_id: str) -> shapes.Request:
    """Cancel a queued request; everything is moved back."""
    return _service().cancel(request_id)


@blueprint.post("/requests/<request_id>/retry")
@blueprint.ops
@blueprint.refuses(NotRetryable)
@blueprint.response(200, schema_of(shapes.Request))
def retry_request(request_id: str) -> shapes.Request:
    """Ops: put a request that needs attention back to the step where it stopped."""
    return _service().retry(request_id)


@blueprint.get("/batches")
@blueprint.arguments(schema_of(shapes.BatchesQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.BatchPage))
def list_batches(query: shapes.BatchesQuery) -> shapes.BatchPage:
    """Batches, newest first."""
    return _service().reads.batches(query)


@blueprint.get("/batches/<batch_id>")
@blueprint.response(200, schema_of(shapes.Batch))
def get_batch(batch_id: str) -> shapes.Batch:
    """One batch with its transactions."""
    return _service().reads.batch(batch_id)


@blueprint.get("/users/<user_id>/portfolio")
@blueprint.refuses(CallFailed)
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.Portfolio))
def get_portfolio(query: PoolQuery, user_id: str) -> shapes.Portfolio:
    """A user's balance, reward position and latest requests; an unknown user has zeros."""
    return _service().reads.portfolio(query, check_user_id(user_id))


@blueprint.get("/events")
@blueprint.arguments(schema_of(shapes.EventsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.EventPage))
def list_events(query: shapes.EventsQuery) -> shapes.EventPage:
    """Every status change in order, without gaps; `next` is always the last sequence seen.

    With `wait` an answer without an event comes only after so many seconds, unless too many callers wait already."""
    return _service().reads.events(query)


@blueprint.get("/walk")
@blueprint.refuses(NotFound)
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Walk))
def get_walk(query: PoolQuery) -> Walk:
    """Ops: how far the books have followed the chain, and why they stand still if they do."""
    return _service().reads.walk(query)


@blueprint.post("/walk/resolve")
@blueprint.ops
@blueprint.refuses(BatchHasEffect, BatchNotMatching, CallFailed, HaltDiffers, ItemBooked, NotHalted)
@blueprint.arguments(schema_of(NewResolution, BodySchema))
@blueprint.response(201, schema_of(Resolution))
@blueprint.alt_response(200, schema=schema_of(Resolution), description="A replay.")
def resolve_walk(body: NewResolution) -> Said:
    """Ops: say what happened where the walk is halted, by one of the ways out that `GET /v1/walk` names.

    With OPS_FOUR_EYES it is `proposed` until a second person approves it; the walk acts on it at its next try."""
    return said(*_service().resolutions.resolve_walk(body))


@blueprint.get("/walk/resolutions")
@blueprint.arguments(schema_of(ResolutionsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(ResolutionPage))
def list_resolutions(query: ResolutionsQuery) -> ResolutionPage:
    """Ops: what was said about halts and parked batches, newest first."""
    return _service().resolutions.list(query)


@blueprint.post("/walk/resolutions/<resolution_id>/approve")
@blueprint.ops
@blueprint.refuses(AlreadyDecided, BatchNotMatching, PayoutNotMatching, SecondPersonNeeded)
@blueprint.arguments(schema_of(Decision, BodySchema))
@blueprint.response(200, schema_of(Resolution))
def approve_resolution(body: Decision, resolution_id: str) -> Resolution:
    """Ops: the second person agrees with what the first said."""
    return _service().resolutions.approve(resolution_id, body.by)


@blueprint.post("/walk/resolutions/<resolution_id>/reject")
@blueprint.ops
@blueprint.refuses(AlreadyDecided)
@blueprint.arguments(schema_of(Decision, BodySchema))
@blueprint.response(200, schema_of(Resolution))
def reject_resolution(body: Decision, resolution_id: str) -> Resolution:
    """Ops: take a proposal back."""
    return _service().resolutions.reject(resolution_id, body.by)


@blueprint.post("/batches/<batch_id>/release")
@blueprint.ops
@blueprint.refuses(BatchHasEffect, BatchNotMatching, CallFailed)
@blueprint.arguments(schema_of(NewRelease, BodySchema))
@blueprint.response(201, schema_of(Resolution))
@blueprint.alt_response(200, schema=schema_of(Resolution), description="A replay.")
def release_batch(body: NewRelease, batch_id: str) -> Said:
    """Ops: a parked batch did nothing on chain and never will; its requests go back to where they waited."""
    return said(*_service().resolutions.release_batch(batch_id, body))


@blueprint.post("/batches/resume")
@blueprint.ops
@blueprint.refuses(NotFound)
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Walk))
def resume_batches(query: PoolQuery) -> Walk:
    """Ops: open batches again after a drift paused them."""
    return _service().resume_batches(query)


@blueprint.get("/protocol-metrics")
@blueprint.arguments(schema_of(MetricsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(ProtocolMetricPage))
def list_protocol_metrics(query: MetricsQuery) -> ProtocolMetricPage:
    """Snapshots of the protocol that the walk took, newest first."""
    return _service().reads.protocol_metrics(query)


def _service() -> PoolService:
    service: PoolService = current_app.extensions["service"]
    return service


def _create(kind: RequestKind, body: Wanted) -> Created:
    return created(*_service().create(kind, effect_name(body.message_id), body))


def created(made: shapes.Request, replayed: bool) -> Created:  # noqa: FBT001
    """The answer of a POST that makes a request."""
    place = {"Location": f"/v1/requests/{made.id}"}
    return (made, 200, {**place, REPLAY_HEADER: "true"}) if replayed else (made, 201, place)


def said(made: Resolution, replayed: bool) -> Said:  # noqa: FBT001
    """The answer of a POST that says what happened."""
    return (made, 200, {REPLAY_HEADER: "true"}) if replayed else (made, 201, {})


def effect_name(given: str | None) -> str:
    """The message_id of the body or of the Idempotency-Key header; both must agree, and one must be there."""
    header = request.headers.get("Idempotency-Key")
    if header is not None and not MESSAGE_ID.fullmatch(header):
        raise InvalidInput(errors={"Idempotency-Key": [MESSAGE_ID_RULE]})
    if given is not None and header is not None and given != header:
        raise InvalidInput(errors={"message_id": ["Differs from the Idempotency-Key header; send one, or both alike."]})
    if given is None and header is None:
        raise InvalidInput(errors={"message_id": ["Missing; give it in the body or as the Idempotency-Key header."]})
    return str(given if given is not None else header)
