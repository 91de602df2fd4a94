"""Claim, checkpoint, wait, park: the four writes every flow step is made of.

Claim takes due rows and commits; the step then runs with no transaction open; the checkpoint writes its outcome only
while the lease token still holds. A worker that was frozen past its lease finds the token gone, and its result is
discarded. All clocks are the database's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, CursorResult, Interval, Text, and_, cast, func, or_, select, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import Sessions, is_transient, transaction
from apps.common.wire import new_id
from apps.pool.models import Batch, FlowEvent, FlowMixin, Request, Walk

Row = TypeVar("Row", Request, Batch, Walk)

MAX_ATTEMPTS = 20
# A service or a database that does not answer heals without us: half a day of it, at the backoff's cap, before ops are asked.
MAX_ATTEMPTS_UNANSWERED = 1_000
BACKOFF_BASE_SEC = 0.5
BACKOFF_CAP_SEC = 60.0


class LeaseLost(Exception):
    """Somebody else took the row over; whatever this step found out is discarded."""


@dataclass(frozen=True)
class Advance:
    """The step is done: the row's next status, and what else to write in the same transaction.

    `write` gets the session after the row was updated; the row's new values are in `values`.
    """

    status: str
    values: Mapping[str, Any] = field(default_factory=dict)
    reason: dict[str, Any] | None = None
    write: Callable[[Session], None] | None = None
    run_in_sec: float | None = 0.0
    wake: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True)
class Wait:
    """Nothing is wrong and nothing can be done yet; looks again later without using up an attempt."""

    seconds: float
    reason: dict[str, Any] | None = None


@dataclass(frozen=True)
class Park:
    """It cannot heal by itself: ops decide."""

    reason: dict[str, Any]


Outcome = Advance | Wait | Park


def seconds(value: float | ColumnElement[float]) -> Any:
    """An SQL interval of so many seconds; the number may be an SQL expression."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value, type_=Interval)


def reason(code: str, detail: str) -> dict[str, Any]:
    return {"code": code, "detail": detail}


def claim(
    sessions: Sessions,
    model: type[Row],
    lease_sec: float,
    *,
    row_id: str | None = None,
    limit: int = 1,
    early: bool = False,
) -> list[Row]:
    """Take up to `limit` due rows, or the named one, and commit. No row means a duplicate or early hint: not an error.

    `early` takes the named row before its time, for work that a hint made possible sooner.
    """
    due = func.coalesce(model.next_run_at <= func.now(), False)
    free = or_(model.lease_until.is_(None), model.lease_until < func.now())
    chosen = select(model.id).where(free, model.next_run_at.is_not(None) if early else due)
    if row_id is not None:
        chosen = chosen.where(model.id == row_id)
    chosen = chosen.order_by(model.next_run_at).limit(limit).with_for_update(skip_locked=True)
    with transaction(sessions) as session:
        statement = (
            update(model)
            .where(model.id.in_(chosen.scalar_subquery()))
            .values(
                lease_token=cast(func.gen_random_uuid(), Text),
                lease_until=func.now() + seconds(lease_sec),
                attempts=model.attempts + 1,
            )
            .returning(model)
        )
        return list(session.scalars(statement, execution_options={"synchronize_session": False}))


def checkpoint(
    session: Session,
    row: Row,
    *,
    status: str | None = None,
    release: bool = True,
    run_in_sec: float | None,
    **values: Any,
) -> None:
    """Write a step's outcome while the lease holds, or raise `LeaseLost`. Attempts start anew with every outcome.

    `run_in_sec` None means that nothing is due until something else wakes the row by writing its ``next_run_at``.
    """
    changes: dict[str, Any] = {
        "attempts": 0,
        "last_error": None,
        "hinted_at": None,
        "updated_at": func.clock_timestamp(),
        "next_run_at": None if run_in_sec is None else func.now() + seconds(run_in_sec),
        **values,
    }
    if status is not None:
        changes["status"] = status
    if release:
        changes |= {"lease_token": None, "lease_until": None}
    _write_fenced(session, row, changes)
    session.add(flow_event(row, "checkpoint", status or row.status, values.get("reason")))


def wait(session: Session, row: Row, outcome: Wait) -> None:
    """Look again later; the attempt is given back, and the reason is shown on the row."""
    changes: dict[str, Any] = {
        "attempts": func.greatest(type(row).attempts - 1, 0),
        "next_run_at": func.now() + seconds(outcome.seconds),
        "hinted_at": None,
        "lease_token": None,
        "lease_until": None,
    }
    if outcome.reason != row.reason:
        changes |= {"reason": outcome.reason, "updated_at": func.clock_timestamp()}
        if (outcome.reason or {}).get("code") != (row.reason or {}).get("code"):  # its wei may differ at every look
            session.add(flow_event(row, "waiting", row.status, outcome.reason))
    _write_fenced(session, row, changes)


def back_off(session: Session, row: Row, error: str) -> None:
    """A transient or unknown fault: the same step again later, with exponential backoff and jitter."""
    delay = min(BACKOFF_CAP_SEC, BACKOFF_BASE_SEC * 2 ** min(row.attempts, 12))
    changes = {
        "last_error": error[:500],
        "next_run_at": func.now() + seconds(delay * (func.random() * 0.5 + 0.5)),
        "hinted_at": None,
        "lease_token": None,
        "lease_until": None,
    }
    session.add(flow_event(row, "failed_attempt", row.status, {"code": "transient", "detail": error[:500]}))
    _write_fenced(session, row, changes)


def attempts_used_up(row: Row, error: Exception) -> bool:
    """Whether a fault is one too many for the row; `back_off` otherwise."""
    unanswered = isinstance(error, CallFailed) or is_transient(error)
    return row.attempts >= (MAX_ATTEMPTS_UNANSWERED if unanswered else MAX_ATTEMPTS)


def fault_text(error: Exception) -> str:
    """What is kept of a fault: a refusal's or failure's own words; of anything unforeseen its kind alone, which
    tells no secret."""
    if is_transient(error):
        return "the database could not answer"
    return str(error) if isinstance(error, CallFailed | CallRefused) else f"unforeseen {type(error).__name__}"


def extend(sessions: Sessions, row: Row, lease_sec: float) -> None:
    """Keep the lease through a long step, between its calls; raises `LeaseLost`."""
    with transaction(sessions) as session:
        _write_fenced(session, row, {"lease_until": func.now() + seconds(lease_sec)})


def flow_event(row: FlowMixin, kind: str, status: str, detail: Mapping[str, Any] | None) -> FlowEvent:
    """A line of the flow's history."""
    subject = {"Request": "request", "Batch": "batch", "Walk": "walk"}[type(row).__name__]
    return FlowEvent(
        subject=subject,
        subject_id=row.id,  # type: ignore[attr-defined]
        type=kind,
        status=status,
        attempt=row.attempts,
        detail=None if detail is None else dict(detail),
    )


def new_lease() -> str:
    return new_id()


def _write_fenced(session: Session, row: Row, changes: Mapping[str, Any]) -> None:
    model = type(row)
    result = session.execute(
        update(model).where(and_(model.id == row.id, model.lease_token == row.lease_token)).values(**changes),
        execution_options={"synchronize_session": False},
    )
    if not isinstance(result, CursorResult) or result.rowcount != 1:
        raise LeaseLost(f"{model.__name__} {row.id}")
