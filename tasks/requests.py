"""Requests whose first or last money step was not finished inside POST: after an outage, a crash, or a cancel."""

from apps.pool.leases import claim
from apps.pool.models import Request
from apps.pool.reserving import run_request
from tasks import celery
from tasks.engine import worker_context

ROWS_PER_MESSAGE = 10


@celery.task(name="tasks.requests.advance")
def advance(request_id: str | None = None) -> int:
    """Run the step of the named due request, or of up to ten due ones; returns how many were taken."""
    context = worker_context()
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
