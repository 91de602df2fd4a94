"""HTTP face of quotes: parse and answer, nothing else."""

from flask import current_app

from apps.clients.base import CallFailed
from apps.clients.shapes import pool as shapes
from apps.clients.shapes.common import PoolQuery
from apps.common.api import Blueprint
from apps.common.shapes import schema_of
from apps.common.wire import QuerySchema
from apps.pool.quotes.service import Quotes

blueprint = Blueprint("quotes", __name__, url_prefix="/v1", description="What a request costs and how long it takes.")


@blueprint.get("/quotes")
@blueprint.refuses(CallFailed)
@blueprint.arguments(schema_of(shapes.QuoteQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.Quote))
def get_quote(query: shapes.QuoteQuery) -> shapes.Quote:
    """Limits, cost and expected time of a stake or unstake, part by part, with what each rests on."""
    return _quotes().quote(query)


@blueprint.get("/quotes/accuracy")
@blueprint.arguments(schema_of(PoolQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.QuoteAccuracies))
def get_quote_accuracy(query: PoolQuery) -> shapes.QuoteAccuracies:
    """How far expected times were off, over the last 30 days."""
    return _quotes().accuracy(query)


def _quotes() -> Quotes:
    found: Quotes = current_app.extensions["quotes"]
    return found
