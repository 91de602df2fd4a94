"""The requests of a batch, and the moves they make together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Integer, cast, func, or_, select, update
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.flows.leases import seconds
from apps.pool.models import Batch, Request
from apps.pool.rendering import TERMINAL

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
        .where(Request.batch_id == batch_id, Request.status.not_in(TERMINAL))
        .order_by(Request.id)
    )
    return [Member(row.id, row.user_id, int(row.amount_wei or 0)) for row in session.execute(query)]


def move_members(session: Session, batch: Batch, status: str, **values: Any) -> list[str]:
    """Move a batch's open requests to a status and record it; returns their ids."""
    ids = [member.request_id for member in members_in(session, batch.id)]
    set_requests(session, ids, status=status, **values)
    record_events(session, ids)
    return ids


def requeue_members(session: Session, batch: Batch, why: Mapping[str, Any]) -> None:
    """Back to the queue, keeping their place in it, after a pause that doubles with each time: a loop that gets nowhere
    slows down, and is seen."""
    times = func.coalesce(cast(Request.context["requeues"].astext, Integer), 0)
    pause = func.least(REQUEUE_AFTER_MOST_SEC, REQUEUE_AFTER_SEC * func.power(2, func.least(times, 10)))
    ids = move_members(
        session,
        batch,
        "queued",
        reason=dict(why),
        batch_id=None,
        eligible_at=func.now() + seconds(pause),
        context=Request.context.op("||")(func.jsonb_build_object("requeues", times + 1)),
    )
    often = session.scalars(
        select(Request.id).where(
            Request.id.in_(ids), cast(Request.context["requeues"].astext, Integer) >= KEEPS_FAILING
        )
    ).all()
    if often:
        log.error("requests_keep_failing", batch_id=batch.id, requests=len(often), why=dict(why))


def requeue_smaller(session: Session, batch: Batch, why: Mapping[str, Any]) -> None:
    """Back to the queue at once, for batches of half as many at most: what is too much together may pass in parts."""
    count = len(members_in(session, batch.id))
    move_members(
        session,
        batch,
        "queued",
        reason=dict(why),
        batch_id=None,
        eligible_at=func.now(),
        context=Request.context.op("||")(func.jsonb_build_object("at_most", max(1, count // 2))),
    )


def left_and_not_requested() -> ColumnElement[bool]:
    """Whether an unstake, joined with its batch, has left the index and has no NFT yet; a parked batch's too."""
    parked = (Batch.status == "needs_attention") & (Batch.context["parked_status"].astext == "requesting")
    return or_(Request.status == "requesting", (Request.status == "needs_attention") & parked)


def set_requests(session: Session, ids: Iterable[str], **values: Any) -> None:
    session.execute(
        update(Request).where(Request.id.in_(list(ids))).values(updated_at=func.clock_timestamp(), **values),
        execution_options={"synchronize_session": False},
    )
