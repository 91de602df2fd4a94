"""HTTP face of the pool: parse and answer, nothing else."""

from typing import Any

from flask import Response, current_app, jsonify, request

from apps.common.api import Blueprint
from apps.common.errors import InvalidInput
from apps.common.idempotency import REPLAY_HEADER
from apps.common.wire import MESSAGE_ID, MESSAGE_ID_RULE, NumberPageSchema, check_user_id
from apps.pool import schemas
from apps.pool.service import PoolService

blueprint = Blueprint("pool", __name__, url_prefix="/v1", description="Stakes, unstakes, reward claims and their life.")


@blueprint.post("/stakes")
@blueprint.arguments(schemas.StakeSchema)
@blueprint.response(201, schemas.RequestSchema)
def create_stake(body: dict[str, Any]) -> Response:
    """Stake a user's available ETH: reserves it now, and batches it with others'."""
    return _create("stake", body)


@blueprint.post("/unstakes")
@blueprint.arguments(schemas.UnstakeSchema)
@blueprint.response(201, schemas.RequestSchema)
def create_unstake(body: dict[str, Any]) -> Response:
    """Unstake an amount, or everything ("max"): pending reward is settled first."""
    return _create("unstake", body)


@blueprint.post("/reward-claims")
@blueprint.arguments(schemas.RewardClaimSchema)
@blueprint.response(201, schemas.RequestSchema)
def create_reward_claim(body: dict[str, Any]) -> Response:
    """Add a user's pending reward to what the user has staked."""
    return _create("reward_claim", body)


@blueprint.get("/requests")
@blueprint.arguments(schemas.RequestsQuerySchema, location="query")
@blueprint.response(200, schemas.RequestPageSchema)
def list_requests(query: dict[str, Any]) -> Response:
    """Requests, newest first."""
    return jsonify(_service().reads.requests(**query))


@blueprint.get("/requests/<request_id>")
@blueprint.response(200, schemas.RequestSchema)
def get_request(request_id: str) -> Response:
    """One request with its timeline, batch, transactions and next step."""
    return jsonify(_service().reads.request(request_id))


@blueprint.post("/requests/<request_id>/cancel")
@blueprint.response(200, schemas.RequestSchema)
def cancel_request(request_id: str) -> Response:
    """Cancel a queued request; everything is moved back."""
    return jsonify(_service().cancel(request_id))


@blueprint.post("/requests/<request_id>/retry")
@blueprint.response(200, schemas.RequestSchema)
def retry_request(request_id: str) -> Response:
    """Ops: put a request that needs attention back to the step where it stopped."""
    return jsonify(_service().retry(request_id))


@blueprint.get("/batches")
@blueprint.arguments(schemas.BatchesQuerySchema, location="query")
@blueprint.response(200, schemas.BatchPageSchema)
def list_batches(query: dict[str, Any]) -> Response:
    """Batches, newest first."""
    return jsonify(_service().reads.batches(**query))


@blueprint.get("/batches/<batch_id>")
@blueprint.response(200, schemas.BatchSchema)
def get_batch(batch_id: str) -> Response:
    """One batch with its transactions."""
    return jsonify(_service().reads.batch(batch_id))


@blueprint.get("/users/<user_id>/portfolio")
@blueprint.arguments(schemas.PoolQuerySchema, location="query")
@blueprint.response(200)
def get_portfolio(query: dict[str, Any], user_id: str) -> Response:
    """A user's balance, reward position and latest requests; an unknown user has zeros."""
    return jsonify(_service().reads.portfolio(_pool_id(query), check_user_id(user_id)))


@blueprint.get("/quotes")
@blueprint.arguments(schemas.QuoteQuerySchema, location="query")
@blueprint.response(200)
def get_quote(query: dict[str, Any]) -> Response:
    """Limits and expected time of a stake or unstake, with the reason."""
    return jsonify(_service().reads.quote(**query))


@blueprint.get("/events")
@blueprint.arguments(NumberPageSchema, location="query")
@blueprint.response(200, schemas.EventPageSchema)
def list_events(query: dict[str, Any]) -> Response:
    """Every status change in order, without gaps; `next` is always the last sequence seen."""
    return jsonify(_service().reads.events(**query))


@blueprint.get("/walk")
@blueprint.arguments(schemas.PoolQuerySchema, location="query")
@blueprint.response(200)
def get_walk(query: dict[str, Any]) -> Response:
    """Ops: how far the books have followed the chain, and why they stand still if they do."""
    return jsonify(_service().reads.walk(_pool_id(query)))


@blueprint.post("/walk/resolve")
@blueprint.arguments(schemas.ResolveWalkSchema)
@blueprint.response(201)
def resolve_walk(body: dict[str, Any]) -> Response:
    """Ops: say what happened where the walk is halted, by one of the ways out that `GET /v1/walk` names.

    With OPS_FOUR_EYES it is `proposed` until a second person approves it; the walk acts on it at its next try."""
    return _said(*_service().resolutions.resolve_walk(body["message_id"], _pool_id(body), body))


@blueprint.get("/walk/resolutions")
@blueprint.arguments(schemas.ResolutionsQuerySchema, location="query")
@blueprint.response(200)
def list_resolutions(query: dict[str, Any]) -> Response:
    """Ops: what was said about halts and parked batches, newest first."""
    return jsonify(_service().resolutions.list(**query))


@blueprint.post("/walk/resolutions/<resolution_id>/approve")
@blueprint.arguments(schemas.DecideSchema)
@blueprint.response(200)
def approve_resolution(body: dict[str, Any], resolution_id: str) -> Response:
    """Ops: the second person agrees with what the first said."""
    return jsonify(_service().resolutions.approve(resolution_id, body["by"]))


@blueprint.post("/walk/resolutions/<resolution_id>/reject")
@blueprint.arguments(schemas.DecideSchema)
@blueprint.response(200)
def reject_resolution(body: dict[str, Any], resolution_id: str) -> Response:
    """Ops: take a proposal back."""
    return jsonify(_service().resolutions.reject(resolution_id, body["by"]))


@blueprint.post("/batches/<batch_id>/release")
@blueprint.arguments(schemas.ReleaseBatchSchema)
@blueprint.response(201)
def release_batch(body: dict[str, Any], batch_id: str) -> Response:
    """Ops: a parked batch did nothing on chain and never will; its requests go back to where they waited."""
    return _said(*_service().resolutions.release_batch(body["message_id"], batch_id, body))


@blueprint.post("/batches/resume")
@blueprint.arguments(schemas.PoolQuerySchema, location="query")
@blueprint.response(200)
def resume_batches(query: dict[str, Any]) -> Response:
    """Ops: open batches again after a drift paused them."""
    return jsonify(_service().resume_batches(_pool_id(query)))


@blueprint.get("/protocol-metrics")
@blueprint.arguments(schemas.MetricsQuerySchema, location="query")
@blueprint.response(200)
def list_protocol_metrics(query: dict[str, Any]) -> Response:
    """Snapshots of the protocol that the walk took, newest first."""
    return jsonify(_service().reads.protocol_metrics(_pool_id(query), limit=query["limit"], after=query["after"]))


def _service() -> PoolService:
    service: PoolService = current_app.extensions["service"]
    return service


def _pool_id(body: dict[str, Any]) -> str:
    return str(body.get("pool_id") or _service().context.settings.pool_id)


def _create(kind: str, body: dict[str, Any]) -> Response:
    message_id = _message_id(body)
    fields = {name: value for name, value in body.items() if name != "message_id"} | {"pool_id": _pool_id(body)}
    shape, replayed = _service().create(kind, message_id, fields)
    response = jsonify(shape)
    response.status_code = 200 if replayed else 201
    response.headers["Location"] = f"/v1/requests/{shape['id']}"
    if replayed:
        response.headers[REPLAY_HEADER] = "true"
    return response


def _said(shape: dict[str, Any], replayed: bool) -> Response:  # noqa: FBT001
    response = jsonify(shape)
    response.status_code = 200 if replayed else 201
    if replayed:
        response.headers[REPLAY_HEADER] = "true"
    return response


def _message_id(body: dict[str, Any]) -> str:
    """The message_id of the body or of the Idempotency-Key header; both must agree, and one must be there."""
    given = body.get("message_id")
    header = request.headers.get("Idempotency-Key")
    if header is not None and not MESSAGE_ID.fullmatch(header):
        raise InvalidInput(errors={"Idempotency-Key": [MESSAGE_ID_RULE]})
    if given is not None and header is not None and given != header:
        raise InvalidInput(errors={"message_id": ["Differs from the Idempotency-Key header; send one, or both alike."]})
    if given is None and header is None:
        raise InvalidInput(errors={"message_id": ["Missing; give it in the body or as the Idempotency-Key header."]})
    return str(given if given is not None else header)
