"""Requests as a flow: the steps that are a request's own, before it is part of a batch.

They run inside the POST and, after a crash, an outage or a cancel, in a worker.
"""

from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.flow import runner
from apps.flow.lease import flow_event, held_from_the_start, reread
from apps.flow.outcome import Advance, Outcome, Park
from apps.flow.runner import Flow
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.flows import deposit, payout, reward_claim, stake, unstake
from apps.pool.flows.lanes import user_lanes
from apps.pool.models import Request
from apps.pool.opening import Opened, close_opening, closes, release_lane
from apps.pool.states import RequestKind, RequestStatus

Step = Callable[[PoolContext, Request], Outcome]

STEPS: dict[tuple[RequestKind, RequestStatus], Step] = {
    (RequestKind.STAKE, RequestStatus.RESERVING): stake.reserve,
    (RequestKind.STAKE, RequestStatus.QUEUED): stake.cancel,
    (RequestKind.UNSTAKE, RequestStatus.RESERVING): unstake.reserve,
    (RequestKind.UNSTAKE, RequestStatus.QUEUED): unstake.cancel,
    (RequestKind.REWARD_CLAIM, RequestStatus.SETTLING): reward_claim.settle,
    **payout.PAYOUT_STEPS,
    **deposit.DEPOSIT_STEPS,
}
# The same as `STEPS` has for the first status of each kind, where the request was made just now.
FIRST_STEPS: dict[RequestKind, Step] = {
    RequestKind.STAKE: stake.reserve,
    RequestKind.UNSTAKE: partial(unstake.reserve, fresh=True),
    RequestKind.REWARD_CLAIM: reward_claim.settle,
    RequestKind.PAYOUT: payout.reserve,
    RequestKind.DEPOSIT: deposit.book,
}


class RequestFlow(Flow[Request]):
    """Runs a request's own steps, one at a time for each user; each change of status is an event of the feed."""

    name = "request"
    model = Request
    task = "tasks.requests.advance"
    rows_per_message = 50
    foreseen = (CallFailed, CallRefused)
    lane_busy_sec = 0.1

    def __init__(self, context: PoolContext) -> None:
        super().__init__(context.sessions, context.publish, context.settings.lease_sec)
        self.context = context

    def step(self, row: Request) -> Outcome:
        with user_lanes(self.context, row.pool_id, [row.user_id]):
            # Before the lane was ours a slashing may have come off the amount: what was acquired is out of date.
            row = reread(self.sessions, row)
            if row.status == RequestStatus.QUEUED and row.intent is None:
                raise LookupError("a queued request has a step of its own only once its user has taken it back")
            return STEPS[RequestKind(row.kind), RequestStatus(row.status)](self.context, row)

    def advanced(self, session: Session, done: Sequence[tuple[Request, Advance]]) -> None:
        record_events(session, [row.id for row, outcome in done if outcome.status != row.status])

    def parked(self, session: Session, done: Sequence[tuple[Request, Park]]) -> None:
        record_events(session, [row.id for row, _ in done])


def advance(context: PoolContext, request_id: str | None = None, *, early: bool = False) -> int:
    """Run the steps of the named due request, or of a burst of due ones; returns how many were taken. `early`: before its
    time."""
    return runner.advance(RequestFlow(context), row_id=request_id, early=early)


def run_request(context: PoolContext, row: Request) -> None:
    """Run the step of a leased request and write its outcome; never raises for what a later run can heal."""
    runner.run(RequestFlow(context), row)


def run_opened(context: PoolContext, opened: Opened) -> bool:
    """Run the first step of a request that was made just now, under the lease and the lane it was made with, and write its
    outcome in one statement; returns whether that is how it went.

    Else the general way was taken, with the same guarantees: the lane was not free, the step raised or came to anything but
    an end or the queue, or the lease was lost. What a step came to is then written by the runner; it is not run again.
    """
    if not opened.has_lane:
        run_request(context, opened.row)
        return False
    came_to: Outcome | Exception
    try:
        came_to = FIRST_STEPS[RequestKind(opened.row.kind)](context, opened.row)
        if isinstance(came_to, Advance) and closes(came_to) and close_opening(context.writer, opened, came_to):
            for task, row_id in came_to.wake:
                context.publish(task, row_id)
            return True
    except Exception as error:  # noqa: BLE001  # whatever it was, the row must come back
        came_to = error
    runner.run(_CameTo(context, opened, came_to), opened.row)
    return False


def intend(session: Session, row: Request, intent: str, event: str, lease_sec: float) -> None:
    """Write on a locked row what is to become of it, and lease it to whoever does so, to run its step at once: whatever step
    was under way finds its own lease gone."""
    row.intent = intent
    for name, value in held_from_the_start(lease_sec).items():
        setattr(row, name, value)
    session.add(flow_event(row, event, row.status, None))
    session.flush()
    session.refresh(row)


class _CameTo(RequestFlow):
    """A step that was run: what it returned or raised, for the runner to write."""

    def __init__(self, context: PoolContext, opened: Opened, came_to: Outcome | Exception) -> None:
        super().__init__(context)
        self._opened = opened
        self._came_to = came_to

    def step(self, row: Request) -> Outcome:
        release_lane(self.context.writer, self._opened)
        if isinstance(self._came_to, Exception):
            raise self._came_to
        return self._came_to
