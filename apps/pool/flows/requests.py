"""Requests whose first or last money step was not finished inside POST: after an outage, a crash, or a cancel."""

from apps.pool.context import PoolContext
from apps.pool.flows.leases import claim
from apps.pool.flows.reserving import run_request
from apps.pool.models import Request

ROWS_PER_MESSAGE = 10


def advance(context: PoolContext, request_id: str | None = None) -> int:
    """Run the step of the named due request, or of up to ten due ones; returns how many were taken."""
    rows = claim(
        context.sessions,
        Request,
        context.settings.lease_sec,
        row_id=request_id,
        limit=1 if request_id else ROWS_PER_MESSAGE,
    )
    for row in rows:
        run_request(context, row)
    return len(rows)
