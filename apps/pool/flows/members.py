"""The requests of a batch, and the moves they make together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.flow.lease import flow_event
from apps.flow.row import Reason, code_of, seconds
from apps.pool.context import PoolContext
from apps.pool.feed import change_requests
from apps.pool.models import Batch, Request, requests_of
from apps.pool.states import REQUEST_TERMINAL, BatchKind, BatchStatus, RequestStatus

REQUEUE_AFTER_SEC = 15.0
REQUEUE_AFTER_MOST_SEC = 900.0
KEEPS_FAILING = 5  # requeued so often without a word of success: the alert `RequestsKeepFailing`

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Member:
    """A request of a batch."""

    request_id: str
    user_id: str
    amount_wei: int


def members(context: PoolContext, batch_id: str) -> list[Member]:
    """The open requests of a batch, in a stable order."""
    with transaction(context.sessions) as session:
        return members_in(session, batch_id)


def members_in(session: Session, batch_id: str) -> list[Member]:
    query = (
        select(Request.id, Request.user_id, Request.amount_wei)
        .where(Request.batch_id == batch_id, Request.status.not_in(REQUEST_TERMINAL))
        .order_by(Request.id)
    )
    return [Member(row.id, row.user_id, int(row.amount_wei or 0)) for row in session.execute(query)]


def move_members(session: Session, batch: Batch, status: RequestStatus, **values: Any) -> int:
    """Move a batch's open requests to a status and record it; returns how many."""
    return _change(session, Request.batch_id == batch.id, status=status, **values)


def park_members(session: Session, batch: Batch, why: Reason) -> None:
    """Show on a batch's open requests that it is parked."""
    parked = RequestStatus.NEEDS_ATTENTION
    _change(session, requests_of(batch), Request.status != parked, status=parked, reason=why)


def unpark_members(session: Session, batch: Batch, status: str) -> None:
    """Let a batch's parked requests go on with it, in the status that it goes back to."""
    back = RequestStatus.CLAIMING if batch.kind == BatchKind.CLAIM else RequestStatus(status)
    parked = Request.status == RequestStatus.NEEDS_ATTENTION
    _change(session, requests_of(batch), parked, status=back, reason=None)


def tell_members(session: Session, batch: Batch, why: Reason | None) -> None:
    """Show on a batch's open requests what it waits for, or that it does so no more; nothing where that is known."""
    told = Request.reason["code"].astext
    known = told.is_distinct_from(code_of(why)) if why is not None else told == code_of(batch.reason)
    _change(session, requests_of(batch), known, reason=why)


def requeue_members(session: Session, batch: Batch, why: Reason) -> None:
    """Back to the queue, keeping their place in it, after a pause that doubles with each time: a loop that gets nowhere
    slows down, and is seen."""
    pause = func.least(REQUEUE_AFTER_MOST_SEC, REQUEUE_AFTER_SEC * func.power(2, func.least(Request.requeues, 10)))
    often = _count(session, batch, Request.requeues + 1 >= KEEPS_FAILING)
    move_members(
        session,
        batch,
        RequestStatus.QUEUED,
        reason=why,
        batch_id=None,
        eligible_at=func.now() + seconds(pause),
        requeues=Request.requeues + 1,
    )
    if often:
        log.error("requests_keep_failing", batch_id=batch.id, requests=often, why=why)


def requeue_smaller(session: Session, batch: Batch, why: Reason) -> None:
    """Back to the queue at once, for batches of half as many at most: what is too much together may pass in parts."""
    move_members(
        session,
        batch,
        RequestStatus.QUEUED,
        reason=why,
        batch_id=None,
        eligible_at=func.now(),
        at_most=max(1, _count(session, batch) // 2),
    )


def insert_batch(session: Session, batch: Batch, detail: Mapping[str, Any]) -> str:
    """Insert a new batch, due now, with the first line of its history; returns its id."""
    batch.status, batch.attempts, batch.next_run_at = BatchStatus.BATCHED, 0, func.now()
    session.add(batch)
    session.flush()
    session.add(flow_event(batch, "created", BatchStatus.BATCHED, detail))
    return batch.id


def left_and_not_requested() -> ColumnElement[bool]:
    """Whether an unstake, joined with its batch, has left the index and has no NFT yet; a parked batch's too."""
    parked = (Batch.status == BatchStatus.NEEDS_ATTENTION) & (Batch.parked_status == BatchStatus.REQUESTING)
    return or_(Request.status == RequestStatus.REQUESTING, (Request.status == RequestStatus.NEEDS_ATTENTION) & parked)


def _change(session: Session, *which: ColumnElement[bool], **values: Any) -> int:
    """Change those of the requests chosen that have not ended."""
    return change_requests(session, *which, Request.status.not_in(REQUEST_TERMINAL), **values)


def _count(session: Session, batch: Batch, *which: ColumnElement[bool]) -> int:
    """How many open requests of a batch there are that `which` chooses."""
    mine = Request.batch_id == batch.id, Request.status.not_in(REQUEST_TERMINAL)
    return session.scalar(select(func.count()).select_from(Request).where(*mine, *which)) or 0
