"""The beginning of a request and the outcome of its first step, each in one statement with all that belongs to it.

The same as the general way in `apps.flow` does in seven transactions: lease, lane, step, outcome under the lease, history,
feed. Whatever is out of the ordinary goes that way; see `apps.pool.flows.requests.run_opened`. The statements are functions
of the database (`sql/open_request.sql`, `sql/close_opening.sql`), where the order of their locks stands.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from apps.clients.shapes.pool import TimelineEntry
from apps.common.crashpoint import crashpoint
from apps.common.database import run_statement
from apps.common.wire import new_id
from apps.flow.outcome import Advance, Outcome
from apps.pool.models import Request
from apps.pool.rendering import shown_reason
from apps.pool.states import FIRST_STATUS, RequestKind, RequestStatus

_OPEN = "SELECT * FROM open_request(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_CLOSE = "SELECT * FROM close_opening(%s, %s, %s, %s, %s, %s, %s)"
_RELEASE = "DELETE FROM user_lanes WHERE pool_id = %s AND user_id = %s AND holder = %s"
# What an outcome of a first step may write; anything else is written the general way.
_WRITABLE = frozenset({"queued_at", "eligible_at", "amount_wei", "settled_wei"})


# A worker of the release before leaves a row alone whose kind it does not know.
FLOW_VERSIONS = {RequestKind.PAYOUT: 2, RequestKind.DEPOSIT: 2}


@dataclass
class Opened:
    """A request that was made now and is leased to us: its row as it stands, its timeline, and whether its user's lane is
    ours as well, under the lease's token."""

    row: Request
    has_lane: bool
    timeline: list[TimelineEntry]


def begun(kind: RequestKind) -> dict[str, str | int]:
    """Columns of a row that `open_request` stores: an id, the first status, and a lease with its first attempt."""
    return {"id": new_id(), "status": FIRST_STATUS[kind], "reservation": 1, "attempts": 1, "lease_token": new_id()}


def open_request(writer: Engine, row: Request, lease_sec: float) -> Opened | None:
    """Store a new request with what `begun` says, and take its user's lane where that is free; None where its message_id is
    known."""
    crashpoint("pool.opening")
    made = run_statement(writer, _OPEN, _values(row, lease_sec))
    crashpoint("pool.opened")
    assert made is not None  # the function answers with one row, always
    return _opened(row, made)


def open_within(session: Session, row: Request, lease_sec: float) -> Opened | None:
    """The same in a transaction that has more to store with the request."""
    return _opened(row, session.connection().exec_driver_sql(_OPEN, _values(row, lease_sec)).one())


def closes(outcome: Outcome) -> bool:
    """Whether `close_opening` can write an outcome whole."""
    return (
        isinstance(outcome, Advance)
        and outcome.write is None
        and outcome.run_in_sec is None
        and _WRITABLE.issuperset(outcome.values)
    )


def close_opening(writer: Engine, opened: Opened, outcome: Advance) -> bool:
    """Write an outcome that `closes`, and give the lane back; the row then stands as it says. False where the lease is gone,
    or this statement was run before and its answer lost: nothing is changed."""
    row, values = opened.row, outcome.values
    amount_wei, settled_wei = values.get("amount_wei"), values.get("settled_wei")
    queues = "queued_at" in values
    detail = None if outcome.reason is None else json.dumps(outcome.reason)
    crashpoint("pool.closing")
    changed = run_statement(
        writer, _CLOSE, (row.id, row.lease_token, outcome.status, detail, amount_wei, settled_wei, queues)
    )
    crashpoint("pool.closed")
    if changed is None:
        return False
    row.updated_at, row.queued_at, row.eligible_at, told_at = changed
    row.status, row.reason, row.next_run_at = outcome.status, outcome.reason, None
    if amount_wei is not None:
        row.amount_wei = amount_wei
    row.settled_wei = settled_wei
    opened.timeline.append(_entry(row, told_at))
    return True


def release_lane(writer: Engine, opened: Opened) -> None:
    """Give the lane back where another statement writes the outcome."""
    run_statement(writer, _RELEASE, (opened.row.pool_id, opened.row.user_id, opened.row.lease_token))


def _values(row: Request, lease_sec: float) -> tuple[Any, ...]:
    asked = (row.id, row.message_id, json.dumps(row.body), row.kind, row.pool_id, row.user_id, row.amount_wei)
    return (*asked, row.status, FLOW_VERSIONS.get(RequestKind(row.kind), 1), row.lease_token, lease_sec)


def _opened(row: Request, made: Sequence[Any]) -> Opened | None:
    opened, has_lane, made_at, told_at = made
    if not opened:
        return None
    row.created_at = row.updated_at = made_at
    return Opened(row, has_lane, [_entry(row, told_at)])


def _entry(row: Request, at: datetime) -> TimelineEntry:
    return TimelineEntry(RequestStatus(row.status), at, shown_reason(row.reason))
