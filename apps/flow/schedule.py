"""Schedules and the database's clock: once-only firing, the heartbeats that it leaves, and a clock that steps back."""

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, case, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from apps.common.database import Sessions, transaction
from apps.flow.row import FlowMixin, LaneMixin, ScheduleFireMixin, seconds

log = structlog.get_logger(__name__)

SWEEP = "sweep"
# The sweep's rows are its heartbeat: one per so many seconds, with the time of the latest beat in it.
SWEEP_MARK_SEC = 10.0


def fires(sessions: Sessions, model: type[ScheduleFireMixin], schedule: str, interval_sec: float) -> bool:
    """Record a schedule's firing; False when another beat fired it already.

    The time is the database's, cut down to the interval, so two beats whose clocks differ fire the same row. Rows of
    times that have not come yet were written before that clock stepped back: they must not keep the schedule waiting
    until their times come again, so they go and the schedule fires.
    """
    with transaction(sessions) as session:
        untrue = delete(model).where(model.schedule == schedule, model.fire_at > func.now())
        stepped_back = session.scalars(untrue.returning(model.fire_at)).all() != []
        fired = session.execute(
            insert(model)
            .values(schedule=schedule, fire_at=_cut(interval_sec))
            .on_conflict_do_nothing()
            .returning(model.fire_at)
        ).one_or_none()
        if fired is not None:
            _prune(session, model, schedule)
    return stepped_back or fired is not None


def mark_sweep(
    session: Session,
    model: type[ScheduleFireMixin],
    flows: Sequence[type[FlowMixin]],
    lanes: type[LaneMixin],
    lease_sec: float,
) -> bool:
    """Leave the sweep's heartbeat; and where the clock has stepped back since the last one, bring back into reach
    whatever was put off by the time that it showed before. Returns whether it has stepped back."""
    stepped_back = _stepped_back(session, model, flows)
    if stepped_back:
        log.error("database_clock_stepped_back")
        session.execute(delete(model).where(model.fire_at > func.now()))
        _bring_back(session, flows, lanes, lease_sec)
    mark = insert(model).values(schedule=SWEEP, fire_at=_cut(SWEEP_MARK_SEC))
    session.execute(
        mark.on_conflict_do_update(index_elements=["schedule", "fire_at"], set_={"created_at": func.clock_timestamp()})
    )
    _prune(session, model, SWEEP)
    return stepped_back


def no_later_than(column: InstrumentedAttribute[Any], limit: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time no later than the limit; none stays none, which `least` would take for the limit."""
    return case((column > limit, limit), else_=column)


def _stepped_back(session: Session, model: type[ScheduleFireMixin], flows: Sequence[type[FlowMixin]]) -> bool:
    """Whether the last sweep, or what any step wrote last, lies in the future."""
    swept = select(func.max(model.created_at)).where(model.schedule == SWEEP).scalar_subquery()
    latest = [swept]
    for history in {flow.history for flow in flows}:
        latest.append(select(history.created_at).order_by(history.id.desc()).limit(1).scalar_subquery())
    return bool(session.scalar(select(func.greatest(*latest) > func.clock_timestamp() + seconds(1.0))))


def _bring_back(session: Session, flows: Sequence[type[FlowMixin]], lanes: type[LaneMixin], lease_sec: float) -> None:
    """What waits is looked at now, which is never wrong. Who holds a lease keeps it for a whole one from now on: it may
    be at work."""
    lease_end = func.now() + seconds(lease_sec)
    quiet = {"synchronize_session": False}
    for model in flows:
        late = or_(model.next_run_at > func.now(), model.lease_until > lease_end)
        changes = {
            "next_run_at": no_later_than(model.next_run_at, func.now()),
            "lease_until": no_later_than(model.lease_until, lease_end),
        }
        due_some_time = model.next_run_at.is_not(None)  # a row that has ended is never written again
        session.execute(update(model).where(due_some_time, late).values(**changes), execution_options=quiet)
    session.execute(
        update(lanes).where(lanes.held_until > lease_end).values(held_until=lease_end), execution_options=quiet
    )


def _cut(interval_sec: float) -> Any:
    return text("to_timestamp(floor(extract(epoch FROM now()) / :i) * :i)").bindparams(i=interval_sec)


def _prune(session: Session, model: type[ScheduleFireMixin], schedule: str) -> None:
    old = func.now() - text("interval '1 day'")
    session.execute(delete(model).where(model.schedule == schedule, model.fire_at < old))
