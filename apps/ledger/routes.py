"""HTTP face of the ledger: parse and answer, nothing else."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from flask import Response, current_app, g, jsonify

from apps.common.api import Blueprint
from apps.common.errors import TooManyRequests
from apps.common.idempotency import REPLAY_HEADER
from apps.common.wire import check_user_id
from apps.ledger import audits, balances, movements, schemas
from apps.ledger.posting import NewMovement
from apps.ledger.service import LedgerService

blueprint = Blueprint("ledger", __name__, url_prefix="/v1", description="Money movements and balances.")


@blueprint.post("/movements")
@blueprint.arguments(schemas.NewMovementSchema)
@blueprint.response(201, schemas.MovementSchema)
def post_movement(body: dict[str, Any]) -> Response:
    """Post one movement, once per message_id."""
    return _service().post(_new(body), g.request_id).response()


@blueprint.post("/movements/batch")
@blueprint.arguments(schemas.BatchSchema)
@blueprint.response(201, schemas.BatchAnswerSchema)
def post_batch(body: dict[str, Any]) -> Response:
    """Post up to 10,000 movements, all or nothing."""
    answer, replayed = _service().post_batch([_new(item) for item in body["movements"]])
    response = jsonify(answer)
    response.status_code = 200 if replayed else 201
    if replayed:
        response.headers[REPLAY_HEADER] = "true"
    return response


@blueprint.get("/movements")
@blueprint.arguments(schemas.MovementsQuerySchema, location="query")
@blueprint.response(200, schemas.MovementPageSchema)
def list_movements(query: dict[str, Any]) -> Response:
    """Movements in order, by user, kind or time."""
    return jsonify(movements.list_movements(_service().sessions, **{**query, "pool_id": _pool_id(query)}))


@blueprint.get("/movements/<path:message_id>")
@blueprint.response(200, schemas.MovementSchema)
def get_movement(message_id: str) -> Response:
    """The movement of a message_id."""
    return jsonify(movements.find_movement(_service().sessions, message_id))


@blueprint.get("/exports/movements")
@blueprint.arguments(schemas.ExportQuerySchema, location="query")
@blueprint.response(200)
def export_movements(query: dict[str, Any]) -> Response:
    """All movements up to now, streamed: NDJSON, a movement a line, or CSV with a header."""
    if not _service().exports.acquire(blocking=False):
        raise TooManyRequests("Other exports are under way; ask again when one has ended.", retry_after=5)
    slot = ExitStack()  # given back at the last line, or when the caller has gone before it
    slot.callback(_service().exports.release)
    lines = movements.export_movements(
        _service().sessions,
        pool_id=_pool_id(query),
        user_id=query["user_id"],
        kind=query["kind"],
        layout=query["format"],
    )
    response = Response(_holding(slot, lines), content_type=schemas.EXPORT_TYPES[query["format"]])
    response.call_on_close(slot.close)
    return response


@blueprint.get("/balances")
@blueprint.arguments(schemas.BalancesQuerySchema, location="query")
@blueprint.response(200)
def list_balances(query: dict[str, Any]) -> Response:
    """Every user's balance, ordered by user_id."""
    return jsonify(balances.list_balances(_service().sessions, _pool_id(query), query["limit"], query["after"]))


@blueprint.get("/balances/<user_id>")
@blueprint.arguments(schemas.BalanceQuerySchema, location="query")
@blueprint.response(200, schemas.BalanceSchema)
def get_balance(query: dict[str, Any], user_id: str) -> Response:
    """A user's balance, now or as of a time; an unknown user has zeros."""
    return jsonify(balances.read_balance(_service().sessions, _pool_id(query), check_user_id(user_id), query["at"]))


@blueprint.get("/totals")
@blueprint.arguments(schemas.PoolQuerySchema, location="query")
@blueprint.response(200)
def get_totals(query: dict[str, Any]) -> Response:
    """Sums over a pool, system accounts included."""
    return jsonify(movements.totals(_service().sessions, _pool_id(query)))


@blueprint.post("/audits")
@blueprint.arguments(schemas.AuditSchema)
@blueprint.response(201, schemas.AuditAnswerSchema)
def post_audit(body: dict[str, Any]) -> tuple[Response, int]:
    """Recompute every balance from movements, and report each difference."""
    return jsonify(audits.run_audit(_service().sessions, _pool_id(body))), 201


@blueprint.get("/audits")
@blueprint.arguments(schemas.AuditsQuerySchema, location="query")
@blueprint.response(200)
def list_audits(query: dict[str, Any]) -> Response:
    """Audits, newest first."""
    return jsonify(audits.list_audits(_service().sessions, query["limit"], query["after"]))


def _holding(slot: ExitStack, lines: Iterator[str]) -> Iterator[str]:
    with slot:
        yield from lines


def _service() -> LedgerService:
    service: LedgerService = current_app.extensions["service"]
    return service


def _pool_id(given: dict[str, Any]) -> str:
    return str(given.get("pool_id") or current_app.extensions["settings"].pool_id)


def _new(body: dict[str, Any]) -> NewMovement:
    return NewMovement(
        message_id=body["message_id"],
        kind=body["kind"],
        pool_id=_pool_id(body),
        user_id=body["user_id"],
        amount_wei=body["amount_wei"],
        reference=body["reference"],
    )
