"""The lease of a row: acquired with a token and committed, kept through a long step, and the fence of every write.

A worker acquires due rows and commits; the step then runs with no transaction open; its outcome is written only while the
token still stands on the row. A worker that was frozen past its lease finds another token there, and its result is
discarded. All clocks are the database's.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Double,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.wire import new_id
from apps.flow import loading
from apps.flow.loading import Row, Statement, compiled
from apps.flow.row import FlowEventMixin, FlowMixin, seconds


class LeaseLost(Exception):
    """Another worker, or a writer that needs no lease, took the row over; what this step found out is discarded."""


def acquire(
    sessions: Sessions,
    model: type[Row],
    lease_sec: float,
    *,
    row_id: str | None = None,
    limit: int = 1,
    early: bool = False,
) -> list[Row]:
    """Lease up to `limit` due rows, or the named one, and commit. No row means a doubled or early hint: not an error.

    `early` takes the named row before its time, for work that a hint made possible sooner. Rows that a later release began
    with other steps are left to its workers.
    """
    given = {"lease_sec": lease_sec, "most": limit} if row_id is None else {"lease_sec": lease_sec, "row_id": row_id}
    statement = _acquire(model, row_id is not None, early)  # type: ignore[arg-type]  # a class is hashable
    return loading.entities(model, loading.run(sessions, statement, **given))


@cache
def _acquire(model: type[FlowMixin], named: bool, early: bool) -> Statement:  # noqa: FBT001
    chosen = select(model.id).where(_is_free(model), model.next_run_at.is_not(None)) if early else select_due(model)
    if named:
        chosen = chosen.where(model.id == bindparam("row_id", type_=Text))
    else:
        chosen = chosen.order_by(model.next_run_at).limit(bindparam("most", type_=Integer))
    table = model.__table__  # type: ignore[attr-defined]
    return compiled(
        update(table)
        .where(table.c.id.in_(chosen.with_for_update(skip_locked=True).scalar_subquery()))
        .values(
            lease_token=cast(func.gen_random_uuid(), Text),
            lease_until=func.now() + seconds(bindparam("lease_sec", type_=Double)),
            attempts=table.c.attempts + 1,
        )
        .returning(*table.c)
    )


def select_due(model: type[FlowMixin]) -> Select[str]:
    """The ids of rows whose time has come, which no worker holds, and whose steps this release knows."""
    return select(model.id).where(_is_free(model), model.next_run_at <= func.now())


def held_from_the_start(lease_sec: float) -> dict[str, Any]:  # values and SQL expressions, by column
    """Columns of a row that whoever inserts or changes it leases in the same transaction, to run its step at once."""
    return {
        "attempts": 1,
        "next_run_at": func.now(),
        "lease_token": new_id(),
        "lease_until": func.now() + seconds(lease_sec),
    }


def reread(sessions: Sessions, row: Row) -> Row:
    """The row as it stands now; raises `LeaseLost` where the lease is gone."""
    rows = loading.run(sessions, _mine(type(row)), row_id=row.id, token=row.lease_token)  # type: ignore[arg-type]
    if not rows:
        raise LeaseLost(f"{row.subject} {row.id}")
    return loading.entities(type(row), rows)[0]


@cache
def _mine(model: type[FlowMixin]) -> Statement:
    table = model.__table__  # type: ignore[attr-defined]
    mine = table.c.id == bindparam("row_id", type_=Text), table.c.lease_token == bindparam("token", type_=Text)
    return compiled(select(*table.c).where(*mine))


def extend(sessions: Sessions, row: FlowMixin, lease_sec: float) -> None:
    """Keep the lease through a long step, between its calls; raises `LeaseLost`."""
    with transaction(sessions) as session:
        write_fenced(session, row, {"lease_until": func.now() + seconds(lease_sec)})


def give_back(sessions: Sessions, rows: Sequence[FlowMixin]) -> None:
    """Give the leases of rows of one model back, each with its attempt; nothing where one is gone already."""
    model = type(rows[0])
    tokens = [row.lease_token for row in rows]
    with transaction(sessions) as session:
        session.execute(
            update(model)
            .where(model.id.in_([row.id for row in rows]), model.lease_token.in_(tokens))
            .values(lease_token=None, lease_until=None, attempts=func.greatest(model.attempts - 1, 0)),
            execution_options={"synchronize_session": False},
        )


def write_fenced(session: Session, row: FlowMixin, changes: Mapping[str, Any]) -> None:
    """Change the row while its lease holds; raises `LeaseLost`, and nothing is changed, where it does not."""
    model = type(row)
    result = session.execute(
        update(model).where(model.id == row.id, model.lease_token == row.lease_token).values(**changes),
        execution_options={"synchronize_session": False},
    )
    if not isinstance(result, CursorResult) or result.rowcount != 1:
        raise LeaseLost(f"{row.subject} {row.id}")


def flow_event(row: FlowMixin, kind: str, status: str, detail: Mapping[str, Any] | None) -> FlowEventMixin:
    """A line of the row's history."""
    event = row.history()
    event.subject, event.subject_id = row.subject, row.id
    event.type, event.status, event.attempt = kind, status, row.attempts
    event.detail = None if detail is None else dict(detail)
    return event


def _is_free(model: type[FlowMixin]) -> ColumnElement[bool]:
    free = or_(model.lease_until.is_(None), model.lease_until < func.now())
    return and_(free, model.flow_version <= model.current_version)
