"""The pool's sweep: which of its rows are flows, and what else a clock that stepped back has put off."""

from sqlalchemy import func, or_, update
from sqlalchemy.orm import Session

from apps.flow import sweep
from apps.flow.row import FlowMixin
from apps.flow.schedule import mark_sweep, no_later_than
from apps.pool.context import PoolContext
from apps.pool.models import Batch, Request, ScheduleFire, UserLane, Walk
from apps.pool.states import RequestStatus

FLOWS: dict[type[FlowMixin], str] = {
    Request: "tasks.requests.advance",
    Batch: "tasks.batches.advance",
    Walk: "tasks.walk.run_pool",
}


def wake(context: PoolContext) -> int:
    """Leave the sweep's heartbeat and hint at every due row; returns how many."""

    def before(session: Session) -> None:
        if mark_sweep(session, ScheduleFire, list(FLOWS), UserLane, context.settings.lease_sec):
            _bring_back_queued(session)

    return sweep.wake(context.sessions, context.publish, FLOWS, before)


def _bring_back_queued(session: Session) -> None:
    """Queued requests wait by times of their own: when they came, and from when on they may be batched."""
    late = or_(Request.eligible_at > func.now(), Request.queued_at > func.now())
    changes = {
        "eligible_at": no_later_than(Request.eligible_at, func.now()),
        "queued_at": no_later_than(Request.queued_at, func.now()),
    }
    session.execute(
        update(Request).where(Request.status == RequestStatus.QUEUED, late).values(**changes),
        execution_options={"synchronize_session": False},
    )
