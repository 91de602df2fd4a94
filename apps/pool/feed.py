"""The ordered, gap-free feed of status changes, which is also each request's timeline."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, insert, select, text, true, update
from sqlalchemy.orm import Session

from apps.pool.models import FeedCounter, Request, RequestEvent

_INSERT = text(
    """
    INSERT INTO request_events (sequence, request_id, status, reason, amount_wei, settled_wei, batch_id)
    SELECT CAST(:last AS bigint) - CAST(:count AS bigint) + row_number() OVER (ORDER BY id),
           id, status, reason, amount_wei, settled_wei, batch_id
    FROM requests WHERE id = ANY(:ids)
    """
)


def record_events(session: Session, request_ids: Sequence[str]) -> None:
    """Append one event per request as it stands in this transaction.

    Call it last: the counter's row lock, held until commit, is what makes sequence order the commit order, so that a
    reader who follows ``after`` never skips a late commit.
    """
    ids = sorted(set(request_ids))
    if not ids:
        return
    session.flush()
    last = session.execute(
        update(FeedCounter)
        .values(last_sequence=FeedCounter.last_sequence + len(ids))
        .returning(FeedCounter.last_sequence),
        execution_options={"synchronize_session": False},
    ).scalar_one()
    session.execute(_INSERT, {"last": last, "count": len(ids), "ids": ids})


def change_requests(session: Session, *which: ColumnElement[bool], **values: Any) -> int:
    """Change the requests that `which` chooses and append an event of each, in one statement whatever their number;
    returns how many there were. None leaves the feed alone.

    Call it last, as `record_events`: the counter is locked once the rows are changed.
    """
    session.flush()
    shown = (Request.id, Request.status, Request.reason, Request.amount_wei, Request.settled_wei, Request.batch_id)
    changes = {"updated_at": func.clock_timestamp(), **values}
    changed = update(Request).where(*which).values(**changes).returning(*shown).cte("changed")
    total = select(func.count()).select_from(changed).scalar_subquery()
    counter = (
        update(FeedCounter)
        .values(last_sequence=FeedCounter.last_sequence + total)
        .where(total > 0)
        .returning((FeedCounter.last_sequence - total).label("before"))
        .cte("counter")
    )
    place = func.row_number().over(order_by=changed.c.id)
    rows = select(counter.c.before + place, *changed.c).select_from(changed.join(counter, true()))
    columns = ("sequence", "request_id", "status", "reason", "amount_wei", "settled_wei", "batch_id")
    done = session.execute(insert(RequestEvent).from_select(columns, rows))
    assert isinstance(done, CursorResult)
    return done.rowcount
