"""The writing of outcomes: those of many rows, with their history, by one statement in one transaction.

Each row is fenced by its own lease token. A row whose token has changed is left as it is and is not among those that are
returned; the others are written all the same, and that it was lost is a line of its history where it is one of many.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    insert,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from apps.common.database import Sessions
from apps.flow import loading
from apps.flow.loading import Row, Statement, compiled
from apps.flow.outcome import Advance, BackOff, Outcome, Park, Wait
from apps.flow.row import FlowMixin, code_of, seconds

PARKED = "needs_attention"
BACK_OFF_BASE_SEC = 0.5
BACK_OFF_CAP_SEC = 60.0
MAX_ERROR_CHARS = 500

# What a statement is given of each row; a column of the outcome's own `values` is added by its name.
_GIVEN = {
    "row_id": Text,
    "token": Text,
    "to_status": Text,
    "to_parked_status": Text,
    "sets_parked_status": Boolean,
    "to_reason": JSONB,
    "sets_reason": Boolean,
    "to_error": Text,
    "sets_error": Boolean,
    "to_attempts": Integer,
    "pause_sec": Double,
    "jitter": Boolean,
    "keep_sec": Double,
    "event": Text,
    "event_status": Text,
    "event_attempt": Integer,
    "event_detail": JSONB,
    "lost_status": Text,
}
_VALUE = "value_"

# What is written of one row: by the names above, and by those of its own columns.
_Given = dict[str, Any]


def goes_on(outcome: Outcome) -> bool:
    """Whether the row's next step is due at once."""
    return isinstance(outcome, Advance) and outcome.run_in_sec is not None and outcome.run_in_sec <= 0


def write_outcomes(session: Session, done: Sequence[tuple[Row, Outcome]], keep_sec: float | None) -> set[str]:
    """Write the outcomes of leased rows of one model; returns the ids of those whose leases still held.

    With `keep_sec` a row whose next step is due keeps its lease, for so long from now, and has begun its next attempt. What
    an outcome's `write` adds is the caller's to call.
    """
    written: set[str] = set()
    for names, expressions, rows in _alike(done):
        given = [_given(row, outcome, keep_sec, names, one_of=len(done)) for row, outcome in rows]
        model: type[FlowMixin] = type(rows[0][0])
        if expressions:
            found = session.execute(_statement(model, names, expressions), {"given": given})
        else:
            sql, constants = _compiled(model, names)  # type: ignore[arg-type]  # a class is hashable, whatever its metaclass says
            found = session.connection().exec_driver_sql(sql, {**constants, "given": json.dumps(given)})
        written.update(found.scalars())
    return written


def are_alike(done: Sequence[tuple[Row, Outcome]]) -> bool:
    """Whether `write_alike` can write outcomes: they set the same columns, and none by an SQL expression."""
    groups = _alike(done)
    return len(groups) == 1 and not groups[0][1]


def write_alike(sessions: Sessions, done: Sequence[tuple[Row, Outcome]], keep_sec: float | None) -> list[Row]:
    """`write_outcomes` in one round trip, its commit included; returns the rows whose leases still held, as they were
    written."""
    ((names, _, rows),) = _alike(done)
    model = type(rows[0][0])
    given = [_given(row, outcome, keep_sec, names, one_of=len(done)) for row, outcome in rows]
    statement = _compiled(model, names, whole=True)  # type: ignore[arg-type]  # as above
    return loading.entities(model, loading.run(sessions, statement, given=json.dumps(given)))


def as_written(session: Session, rows: Sequence[Row]) -> list[Row]:
    """Rows that `write_outcomes` wrote in this transaction, for their next step; all hold the leases that they were given."""
    if not rows:
        return []
    model = type(rows[0])
    found = session.scalars(select(model).where(model.id.in_([row.id for row in rows])))
    by_id = {row.id: row for row in found}
    return [by_id[row.id] for row in rows]


_Group = tuple[tuple[str, ...], Mapping[str, ColumnElement[Any]], list[tuple[Row, Outcome]]]


def _alike(done: Sequence[tuple[Row, Outcome]]) -> list[_Group[Row]]:
    """Group outcomes that set the same columns, and set them by the same SQL expressions."""
    groups: dict[tuple[Any, ...], _Group[Row]] = {}
    for row, outcome in done:
        values = outcome.values if isinstance(outcome, Advance | Wait) else {}
        expressions = {name: value for name, value in values.items() if isinstance(value, ColumnElement)}
        names = tuple(sorted(values.keys() - expressions.keys()))
        key = names, tuple(sorted((name, id(value)) for name, value in expressions.items()))
        groups.setdefault(key, (names, expressions, []))[2].append((row, outcome))
    return list(groups.values())


@cache
def _compiled(model: type[FlowMixin], names: tuple[str, ...], *, whole: bool = False) -> Statement:
    return compiled(_statement(model, names, {}, whole=whole))


def _statement(
    model: type[FlowMixin],
    names: tuple[str, ...],
    expressions: Mapping[str, ColumnElement[Any]],
    *,
    whole: bool = False,
) -> Any:
    """One statement for rows of a model: lock them in the order of their ids, change them, add their history. It tells
    their ids, or the `whole` rows."""
    table = model.__table__  # type: ignore[attr-defined]
    own = [column(_VALUE + name, table.c[name].type) for name in names]
    read = (
        func.jsonb_to_recordset(bindparam("given", type_=JSONB))
        .table_valued(*(column(name, kind) for name, kind in _GIVEN.items()), *own, name="read")
        .render_derived(with_types=True)
    )
    given = select(*read.c).cte("given")
    mine = (
        select(table.c.id)
        .join(given, (table.c.id == given.c.row_id) & (table.c.lease_token == given.c.token))
        .order_by(table.c.id)
        .with_for_update(of=table)
        .cte("mine")
    )
    changes = _changes(table.c, given.c)
    changes |= {name: given.c[_VALUE + name] for name in names} | dict(expressions)
    shown = list(table.c) if whole else [table.c.id]
    changed = (
        update(table)
        .where(table.c.id == given.c.row_id, table.c.id == mine.c.id)
        .values(changes)
        .returning(*shown, given.c.event, given.c.event_status, given.c.event_attempt, given.c.event_detail)
        .cte("changed")
    )
    return select(*(changed.c[column.name] for column in shown)).add_cte(_told(model, given, mine, changed))


def _changes(old: Any, given: Any) -> dict[str, Any]:
    """What each outcome sets, as far as it says so; `null` leaves a status as it is."""
    pause = given.pause_sec * case((given.jitter, func.random() * 0.5 + 0.5), else_=1.0)
    kept = given.keep_sec.is_not(None)
    shown = given.to_status.is_not(None) | given.sets_reason
    return {
        "status": func.coalesce(given.to_status, old.status),
        "parked_status": case((given.sets_parked_status, given.to_parked_status), else_=old.parked_status),
        "reason": case((given.sets_reason, given.to_reason), else_=old.reason),
        "last_error": case((given.sets_error, given.to_error), else_=old.last_error),
        "attempts": given.to_attempts,
        "next_run_at": func.now() + seconds(pause),
        "lease_token": case((kept, old.lease_token), else_=null()),
        "lease_until": func.now() + seconds(given.keep_sec),
        "updated_at": case((shown, func.clock_timestamp()), else_=old.updated_at),
    }


def _told(model: type[FlowMixin], given: Any, mine: CTE, changed: CTE) -> CTE:
    """The lines of history: what the outcomes say, and which leases were lost."""
    history = model.history.__table__  # type: ignore[attr-defined]
    subject = cast(model.subject, Text)
    told = (
        subject,
        changed.c.id,
        changed.c.event,
        changed.c.event_status,
        changed.c.event_attempt,
        changed.c.event_detail,
    )
    lost = (subject, given.c.row_id, cast("lease_lost", Text), given.c.lost_status, given.c.event_attempt, null())
    lines = (
        select(*told)
        .where(changed.c.event.is_not(None))
        .union_all(select(*lost).where(given.c.lost_status.is_not(None), given.c.row_id.not_in(select(mine.c.id))))
        .order_by(text("2"))
    )
    names = ["subject", "subject_id", "type", "status", "attempt", "detail"]
    return insert(history).from_select(names, lines).returning(history.c.id).cte("told")


def _given(row: FlowMixin, outcome: Outcome, keep_sec: float | None, names: tuple[str, ...], *, one_of: int) -> _Given:
    given: _Given = {"row_id": row.id, "token": row.lease_token, "event_attempt": row.attempts}
    if one_of > 1:
        given["lost_status"] = row.status
    if isinstance(outcome, Advance):
        given |= _advanced(outcome, keep_sec)
    elif isinstance(outcome, Wait):
        given |= _waiting(row, outcome)
    elif isinstance(outcome, Park):
        given |= _parked(row, outcome)
    else:
        given |= _backing_off(row, outcome)
    if isinstance(outcome, Advance | Wait):
        given |= {_VALUE + name: _plain(outcome.values[name]) for name in names}
    return given


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _advanced(outcome: Advance, keep_sec: float | None) -> _Given:
    kept = keep_sec is not None and goes_on(outcome)
    return {
        "to_status": outcome.status,
        "sets_parked_status": True,
        "to_reason": outcome.reason,
        "sets_reason": True,
        "sets_error": True,
        "to_attempts": 1 if kept else 0,
        "pause_sec": outcome.run_in_sec,
        "keep_sec": keep_sec if kept else None,
        "event": "checkpoint",
        "event_status": outcome.status,
        "event_detail": outcome.reason,
    }


def _waiting(row: FlowMixin, outcome: Wait) -> _Given:
    given: _Given = {"to_attempts": max(0, row.attempts - 1), "pause_sec": outcome.seconds}
    if outcome.reason != row.reason:
        given |= {"to_reason": outcome.reason, "sets_reason": True}
        if code_of(outcome.reason) != code_of(row.reason):  # the numbers in its detail may differ at every look
            given |= {"event": "waiting", "event_status": row.status, "event_detail": outcome.reason}
    return given


def _parked(row: FlowMixin, outcome: Park) -> _Given:
    return {
        "to_status": PARKED,
        # A row parked again by a way out that was refused keeps the status that it was parked in first.
        "to_parked_status": row.parked_status if row.status == PARKED else row.status,
        "sets_parked_status": True,
        "to_reason": outcome.reason,
        "sets_reason": True,
        "sets_error": True,
        "to_attempts": 0,
        "event": "parked",
        "event_status": PARKED,
        "event_detail": outcome.reason,
    }


def _backing_off(row: FlowMixin, outcome: BackOff) -> _Given:
    error = outcome.error[:MAX_ERROR_CHARS]
    return {
        "to_error": error,
        "sets_error": True,
        "to_attempts": row.attempts,
        "pause_sec": min(BACK_OFF_CAP_SEC, BACK_OFF_BASE_SEC * 2 ** min(row.attempts, 12)),
        "jitter": True,
        "event": "failed_attempt",
        "event_status": row.status,
        "event_detail": {"code": "transient", "detail": error},
    }
