"""Schedules and the database's clock: once-only firing, the heartbeats it leaves, and what happens when that clock
steps back."""

from typing import Any

import structlog
from sqlalchemy import case, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

import celeryconfig
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.leases import seconds
from apps.pool.models import Batch, FlowEvent, Request, ScheduleFire, UserLane, Walk

log = structlog.get_logger(__name__)

SWEEP = "sweep"
# The sweep's rows are its heartbeat: one per so many seconds, with the time of the latest beat in it.
SWEEP_MARK_SEC = 10.0


def fires(context: PoolContext, schedule: str | None) -> bool:
    """Record a schedule's firing; False when another beat fired it already. A hint (None) always runs.

    The time is the database's, cut down to the interval, so two beats whose clocks differ fire the same row. Rows of
    times that have not come yet were written before that clock stepped back: they must not keep the schedule waiting
    until their times come again, so they go and the schedule fires.
    """
    if schedule is None:
        return True
    with transaction(context.sessions) as session:
        untrue = delete(ScheduleFire).where(ScheduleFire.schedule == schedule, ScheduleFire.fire_at > func.now())
        stepped_back = session.scalars(untrue.returning(ScheduleFire.fire_at)).all() != []
        fired = session.execute(
            insert(ScheduleFire)
            .values(schedule=schedule, fire_at=_cut(float(str(celeryconfig.beat_schedule[schedule]["schedule"]))))
            .on_conflict_do_nothing()
            .returning(ScheduleFire.fire_at)
        ).one_or_none()
        if fired is not None:
            _prune(session, schedule)
    return stepped_back or fired is not None


def mark_sweep(session: Session, lease_sec: float) -> None:
    """Leave the sweep's heartbeat; and where the clock has stepped back since the last one, bring back into reach
    whatever was put off by the time that it showed before."""
    if _stepped_back(session):
        log.error("database_clock_stepped_back")
        session.execute(delete(ScheduleFire).where(ScheduleFire.fire_at > func.now()))
        _bring_back(session, lease_sec)
    mark = insert(ScheduleFire).values(schedule=SWEEP, fire_at=_cut(SWEEP_MARK_SEC))
    session.execute(
        mark.on_conflict_do_update(index_elements=["schedule", "fire_at"], set_={"created_at": func.clock_timestamp()})
    )
    _prune(session, SWEEP)


def _stepped_back(session: Session) -> bool:
    """Whether the last sweep, or what any step wrote last, lies in the future."""
    swept = select(func.max(ScheduleFire.created_at)).where(ScheduleFire.schedule == SWEEP).scalar_subquery()
    written = select(FlowEvent.created_at).order_by(FlowEvent.id.desc()).limit(1).scalar_subquery()
    return bool(session.scalar(select(func.greatest(swept, written) > func.clock_timestamp() + seconds(1.0))))


def _bring_back(session: Session, lease_sec: float) -> None:
    """What waits is looked at now, which is never wrong. Who holds a lease keeps it for a whole one from now on: it may
    be at work."""
    lease_end = func.now() + seconds(lease_sec)
    quiet = {"synchronize_session": False}
    for model in (Request, Batch, Walk):
        changes: dict[str, Any] = {
            "next_run_at": _at_most(model.next_run_at, func.now()),
            "lease_until": _at_most(model.lease_until, lease_end),
            "hinted_at": None,
        }
        late = [model.next_run_at > func.now(), model.lease_until > lease_end, model.hinted_at > func.now()]
        if model is Request:
            changes["eligible_at"] = _at_most(Request.eligible_at, func.now())
            changes["queued_at"] = _at_most(Request.queued_at, func.now())
            late += [Request.eligible_at > func.now(), Request.queued_at > func.now()]
        session.execute(update(model).where(or_(*late)).values(**changes), execution_options=quiet)
    session.execute(
        update(UserLane).where(UserLane.held_until > lease_end).values(held_until=lease_end), execution_options=quiet
    )


def _at_most(column: Any, limit: Any) -> Any:
    """A time no later than the limit; none stays none, which `least` would take for the limit."""
    return case((column > limit, limit), else_=column)


def _cut(interval_sec: float) -> Any:
    return text("to_timestamp(floor(extract(epoch FROM now()) / :i) * :i)").bindparams(i=interval_sec)


def _prune(session: Session, schedule: str) -> None:
    old = func.now() - text("interval '1 day'")
    session.execute(delete(ScheduleFire).where(ScheduleFire.schedule == schedule, ScheduleFire.fire_at < old))
