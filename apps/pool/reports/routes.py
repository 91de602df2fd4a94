"""HTTP face of statements and lineage: parse and answer, nothing else."""

from flask import Response, current_app

from apps.clients.base import CallFailed
from apps.clients.shapes import reports as shapes
from apps.common.api import Blueprint
from apps.common.shapes import schema_of
from apps.common.wire import QuerySchema, check_tx_hash, check_user_id
from apps.pool.context import PoolContext
from apps.pool.reads import PoolReads
from apps.pool.reports.lineage import lineage, requests_of_transaction
from apps.pool.reports.statement import statement
from apps.pool.reports.statement_csv import rendered

blueprint = Blueprint("reports", __name__, url_prefix="/v1", description="Statements, and the way of a wei.")


@blueprint.get("/users/<user_id>/statement")
@blueprint.refuses(CallFailed)
@blueprint.arguments(schema_of(shapes.StatementQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.Statement))
@blueprint.alt_response(200, schema={"type": "string"}, content_type="text/csv", description="OK")
def get_statement(query: shapes.StatementQuery, user_id: str) -> shapes.Statement | Response:
    """A user's account over a span, as JSON, or as CSV with `format=csv`.

    Both ends, each movement with its transaction and block, rewards of each day, fees, the yearly rate."""
    found = statement(_context(), check_user_id(user_id), query)
    if query.format == "csv":
        return Response(rendered(found), content_type=shapes.STATEMENT_FORMATS["csv"])
    return found


@blueprint.get("/requests/<request_id>/lineage")
@blueprint.refuses(CallFailed)
@blueprint.response(200, schema_of(shapes.Lineage))
def get_lineage(request_id: str) -> shapes.Lineage:
    """The way of a request's wei: movements, batches, messages, transactions, blocks, logs."""
    context = _context()
    return lineage(context, PoolReads(context), request_id)


@blueprint.get("/transactions/<tx_hash>/requests")
@blueprint.refuses(CallFailed)
@blueprint.arguments(schema_of(shapes.TransactionRequestsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.TransactionRequests))
def list_requests_of_transaction(query: shapes.TransactionRequestsQuery, tx_hash: str) -> shapes.TransactionRequests:
    """Whose wei a transaction moved: the way back."""
    return requests_of_transaction(_context(), check_tx_hash(tx_hash), query)


def _context() -> PoolContext:
    found: PoolContext = current_app.extensions["context"]
    return found
