"""HTTP face of the ledger: parse and answer, nothing else."""

from collections.abc import Sequence

from flask import Response, current_app, g

from apps.clients.shapes.common import Audit, AuditPage, IdPageQuery, PoolQuery
from apps.clients.shapes.ledger import (
    EXPORT_TYPES,
    Balance,
    BalancePage,
    BalanceQuery,
    BalancesQuery,
    BatchAnswer,
    ExportQuery,
    Movement,
    MovementPage,
    MovementsQuery,
    NewAudit,
    NewMovement,
    NewMovementBatch,
    Statement,
    StatementQuery,
    Totals,
)
from apps.common.api import Blueprint
from apps.common.audit_log import ops_call
from apps.common.errors import AppendOnlyUnproven, InProgress, TooManyRequests
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema, check_user_id
from apps.ledger.errors import AlreadyReversed, BalanceTooLarge, InsufficientBalance, NotReversible
from apps.ledger.kinds import BFF_KINDS
from apps.ledger.reads import LedgerReads
from apps.ledger.service import LedgerService

blueprint = Blueprint("ledger", __name__, url_prefix="/v1", description="Money movements and balances.")

WRITES = (AppendOnlyUnproven, InProgress)


@blueprint.post("/movements")
@blueprint.refuses(*WRITES, AlreadyReversed, BalanceTooLarge, InsufficientBalance, NotReversible)
@blueprint.arguments(schema_of(NewMovement, BodySchema))
@blueprint.response(201, schema_of(Movement))
@blueprint.alt_response(200, schema=schema_of(Movement), description="A replay.")
def create_movement(body: NewMovement) -> Response:
    """Post one movement, once per message_id. Kinds that no BFF posts need a key of ops."""
    _check_kinds([body])
    return _service().post(body, g.request_id).response()


@blueprint.post("/movements/batch")
@blueprint.refuses(*WRITES, AlreadyReversed, BalanceTooLarge, InsufficientBalance, NotReversible)
@blueprint.arguments(schema_of(NewMovementBatch, BodySchema))
@blueprint.response(201, schema_of(BatchAnswer))
@blueprint.alt_response(200, schema=schema_of(BatchAnswer), description="All of them were known.")
def create_movements(body: NewMovementBatch) -> BatchAnswer | tuple[BatchAnswer, int, dict[str, str]]:
    """Post up to 10,000 movements, all or nothing. Kinds that no BFF posts need a key of ops."""
    _check_kinds(body.movements)
    answer = _service().post_batch(body.movements)
    return answer if answer.posted else (answer, 200, {REPLAY_HEADER: "true"})


@blueprint.get("/movements")
@blueprint.arguments(schema_of(MovementsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(MovementPage))
def list_movements(query: MovementsQuery) -> MovementPage:
    """Movements in order, by user, kind or time."""
    return _reads().movements(query)


@blueprint.get("/movements/<path:message_id>")
@blueprint.response(200, schema_of(Movement))
def get_movement(message_id: str) -> Movement:
    """The movement of a message_id."""
    return _reads().movement(message_id)


@blueprint.get("/exports/movements")
@blueprint.refuses(TooManyRequests)
@blueprint.arguments(schema_of(ExportQuery, QuerySchema), location="query")
@blueprint.response(200, {"type": "string"}, content_type="application/x-ndjson", description="A movement a line.")
@blueprint.response(200, {"type": "string"}, content_type="text/csv", description="A movement a line.")
def export_movements(query: ExportQuery) -> Response:
    """All movements up to now, streamed: NDJSON, a movement a line, or CSV with a header."""
    export = _reads().export(query)
    response = Response(export.lines, content_type=EXPORT_TYPES[query.format])
    response.call_on_close(export.close)
    return response


@blueprint.get("/balances")
@blueprint.arguments(schema_of(BalancesQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(BalancePage))
def list_balances(query: BalancesQuery) -> BalancePage:
    """Every user's balance, ordered by user_id."""
    return _reads().balances(query)


@blueprint.get("/balances/<user_id>")
@blueprint.arguments(schema_of(BalanceQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Balance))
def get_balance(query: BalanceQuery, user_id: str) -> Balance:
    """A user's balance, now or as of a time; an unknown user has zeros."""
    return _reads().balance(query, check_user_id(user_id))


@blueprint.get("/statements/<user_id>")
@blueprint.arguments(schema_of(StatementQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Statement))
def get_statement(query: StatementQuery, user_id: str) -> Statement:
    """What a user had at both ends of a span, and every movement in between."""
    return _reads().statement(query, check_user_id(user_id))


@blueprint.get("/totals")
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(Totals))
def get_totals(query: PoolQuery) -> Totals:
    """Sums over a pool, system accounts included."""
    return _reads().totals(query.pool_id)


@blueprint.post("/audits")
@blueprint.arguments(schema_of(NewAudit, BodySchema))
@blueprint.response(201, schema_of(Audit))
def create_audit(body: NewAudit) -> Audit:
    """Recompute every balance from movements, and report each difference."""
    return _service().audit(body.pool_id, full=body.full)


@blueprint.get("/audits")
@blueprint.arguments(schema_of(IdPageQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(AuditPage))
def list_audits(query: IdPageQuery) -> AuditPage:
    """Audits, newest first."""
    return _reads().audits(query)


def _check_kinds(movements: Sequence[NewMovement]) -> None:
    if any(movement.kind not in BFF_KINDS for movement in movements):
        ops_call()


def _service() -> LedgerService:
    service: LedgerService = current_app.extensions["service"]
    return service


def _reads() -> LedgerReads:
    reads: LedgerReads = current_app.extensions["reads"]
    return reads
