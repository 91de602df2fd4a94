"""Why an unstake waits for Lido, and until when it probably does: shown on the request, and nothing is decided by it.

Lido pays withdrawals in its oracle reports, first in first out, and only those asked for some time before the report.
Reports may be late, skipped, or pay a part of the queue, so this is an estimate and moves with every look.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, update

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes.protocols import Switches, WithdrawalStatus
from apps.common.database import one_of, transaction
from apps.flow.row import Reason, reason
from apps.pool.context import PoolContext
from apps.pool.feed import change_requests
from apps.pool.models import Request, Withdrawal
from apps.pool.states import RequestStatus

MARGIN_SEC = 7_680  # the oracle leaves out requests younger than this at its reference slot


def explain_waiting(context: PoolContext, statuses: Sequence[WithdrawalStatus]) -> None:
    """Write reason and estimate on the requests of NFTs that are not finalized; a new reason is an event."""
    asked = {item.withdrawal_id: item.requested_at for item in statuses if not item.finalized}
    if not asked:
        return
    try:
        state = context.look.state(context.protocols)
        report = last_report(context)
    except (CallFailed, CallRefused):
        return  # what was shown before stands until the next look
    why, certain = _reason(state.switches)
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(Withdrawal.request_id, Withdrawal.withdrawal_id)
            .join(Request, Request.id == Withdrawal.request_id)
            .where(Withdrawal.withdrawal_id.in_(asked), Request.status == RequestStatus.WAITING)
        ).all()
        latest: dict[str, datetime] = {}
        for row in rows:
            latest[row.request_id] = max(asked[row.withdrawal_id], latest.get(row.request_id, asked[row.withdrawal_id]))
        by_time: dict[datetime | None, list[str]] = {}
        for request_id, requested_at in latest.items():
            due = None
            if certain and report is not None:
                due = expected_at(requested_at, *report, state.block_time)
            by_time.setdefault(due, []).append(request_id)
        for due, ids in by_time.items():
            session.execute(
                update(Request)
                .where(
                    one_of(Request.id, ids),
                    Request.status == RequestStatus.WAITING,
                    Request.expected_at.is_distinct_from(due),
                )
                .values(expected_at=due),
                execution_options={"synchronize_session": False},
            )
        change_requests(
            session,
            one_of(Request.id, list(latest)),
            Request.status == RequestStatus.WAITING,
            func.coalesce(Request.reason["code"].astext, "") != why["code"],
            reason=why,
        )


def expected_at(requested_at: datetime, reported_at: datetime, frame: timedelta, now: datetime) -> datetime:
    """The first report, one each frame after the last, that is still to come and a margin later than the request."""
    earliest = max(requested_at + min(timedelta(seconds=MARGIN_SEC), frame), now)
    frames = max(1, -(-(earliest - reported_at) // frame))
    return reported_at + frames * frame


def last_report(context: PoolContext) -> tuple[datetime, timedelta] | None:
    """When the last report was and how long after the one before; None before the first."""
    last = context.protocols.apr().last
    if last is None:
        return None
    reported_at = context.protocols.state(last.block_number).block_time
    return reported_at, timedelta(seconds=last.elapsed_sec)


def _reason(switches: Switches) -> tuple[Reason, bool]:
    """Why it waits, and whether the rhythm of reports says until when."""
    if switches.stopped:
        return reason("protocol_stopped", "The protocol is stopped; withdrawals are paid once it resumes."), False
    if switches.queue_paused:
        return reason("queue_paused", "The withdrawal queue is paused; withdrawals are paid once it resumes."), False
    if switches.bunker:
        return reason(
            "bunker", "The protocol is in bunker mode after a loss; it pays withdrawals later than usual."
        ), False
    return reason("withdrawal_queue", "Lido pays withdrawals in its order, in one of its next reports."), True
