"""The pool's sweep: which of its rows are flows, and what else a clock that stepped back has put off."""

from sqlalchemy import func, or_, update
from sqlalchemy.orm import Session

from apps.flow import sweep
from apps.flow.row import FlowMixin
from apps.flow.schedule import mark_sweep, no_later_than
from apps.pool.context import PoolContext
from apps.pool.feed import number_events
from apps.pool.flows.batches import BatchFlow
from apps.pool.flows.requests import RequestFlow
from apps.pool.models import Batch, Request, ScheduleFire, UserLane, Walk, Webhook, queued_requests
from apps.pool.walk.run import WalkFlow
from apps.pool.webhooks.fan_out import FAN_OUT_TASK, is_behind
from apps.pool.webhooks.flow import WebhookFlow, bring_back_deliveries

FLOWS: dict[type[FlowMixin], str] = {Request: RequestFlow.task, Batch: BatchFlow.task, Webhook: WebhookFlow.task}
WALKS: dict[type[FlowMixin], str] = {Walk: WalkFlow.task}


def wake(context: PoolContext) -> int:
    """Leave the sweep's heartbeat, number the feed's new events, and hint at what is due; returns how many hints."""
    number_events(context.sessions)
    if is_behind(context.readers):
        context.publish(FAN_OUT_TASK, None)

    def before(session: Session) -> None:
        if mark_sweep(session, ScheduleFire, [*FLOWS, *WALKS], UserLane, context.settings.lease_sec):
            _bring_back_queued(session)
            bring_back_deliveries(session)

    return sweep.wake(context.sessions, context.publish, FLOWS, WALKS, before)


def _bring_back_queued(session: Session) -> None:
    """Queued requests wait by times of their own: when they came, and from when on they may be batched."""
    late = or_(Request.eligible_at > func.now(), Request.queued_at > func.now())
    changes = {
        "eligible_at": no_later_than(Request.eligible_at, func.now()),
        "queued_at": no_later_than(Request.queued_at, func.now()),
    }
    session.execute(
        update(Request).where(*queued_requests(), late).values(**changes),
        execution_options={"synchronize_session": False},
    )
