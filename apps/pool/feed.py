"""The ordered, gap-free feed of status changes, which is also each request's timeline.

An event is written without a number, in the transaction that it tells of, and gets its number after that has committed:
from the sweep, or from whoever reads the feed. A number given in the transaction itself would have to be locked until its
commit is on the disk, and every change of every request would wait for the one before it.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, insert, select, text, update
from sqlalchemy.orm import Session

from apps.common.arrays import array
from apps.common.database import Sessions, transaction
from apps.pool.models import Request, UnnumberedEvent

NUMBERED_AT_ONCE = 10_000

_INSERT = text(
    """
    INSERT INTO unnumbered_events (request_id, status, reason, amount_wei, settled_wei, batch_id)
    SELECT id, status, reason, amount_wei, settled_wei, batch_id FROM requests WHERE id = ANY(CAST(:ids AS text[])) ORDER BY id
    """
)


def record_events(session: Session, request_ids: Sequence[str]) -> None:
    """Append one event per request as it stands in this transaction."""
    ids = sorted(set(request_ids))
    if not ids:
        return
    session.flush()
    session.execute(_INSERT, {"ids": array(ids)})


def change_requests(session: Session, *which: ColumnElement[bool], **values: Any) -> int:
    """Change the requests that `which` chooses and append an event of each, in one statement whatever their number;
    returns how many there were."""
    session.flush()
    shown = (Request.id, Request.status, Request.reason, Request.amount_wei, Request.settled_wei, Request.batch_id)
    changes = {"updated_at": func.clock_timestamp(), **values}
    changed = update(Request).where(*which).values(**changes).returning(*shown).cte("changed")
    columns = ("request_id", "status", "reason", "amount_wei", "settled_wei", "batch_id")
    rows = select(*changed.c).order_by(changed.c.id)
    done = session.execute(insert(UnnumberedEvent).from_select(columns, rows))
    assert isinstance(done, CursorResult)
    return done.rowcount


def number_events(sessions: Sessions) -> None:
    """Number every event that is committed by now, each `NUMBERED_AT_ONCE` in a transaction of its own.

    A reader who follows ``after`` never skips a late commit: it gets a number above all that were given before.
    """
    number = text("SELECT number_events(:most)")
    while True:
        with transaction(sessions) as session:
            if session.execute(number, {"most": NUMBERED_AT_ONCE}).scalar_one() < NUMBERED_AT_ONCE:
                return
