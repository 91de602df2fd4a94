"""Batches as a flow: which function runs for a kind and a status, and what a batch's requests are told."""

from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import transaction
from apps.flow import runner
from apps.flow.outcome import Outcome, Park, Wait
from apps.flow.row import code_of, reason
from apps.flow.runner import Flow
from apps.pool.context import PoolContext
from apps.pool.flows import requests
from apps.pool.flows.members import park_members, tell_members
from apps.pool.flows.releasing import release
from apps.pool.flows.stake import STAKE_STEPS
from apps.pool.flows.unstake import UNSTAKE_STEPS
from apps.pool.flows.withdrawal_claim import CLAIM_STEPS
from apps.pool.models import Batch, BatchTransaction, PayoutTransaction
from apps.pool.states import BatchKind, BatchStatus
from apps.pool.walk.booking import WalkHalted

HALTED_AGAIN_SEC = 30.0

Step = Callable[[PoolContext, Batch], Outcome]

STEPS: dict[tuple[BatchKind, BatchStatus], Step] = {
    **{(BatchKind.STAKE, status): step for status, step in STAKE_STEPS.items()},
    **{(BatchKind.UNSTAKE, status): step for status, step in UNSTAKE_STEPS.items()},
    **{(BatchKind.CLAIM, status): step for status, step in CLAIM_STEPS.items()},
    # A parked batch is due only once ops have released it.
    **{(kind, BatchStatus.NEEDS_ATTENTION): release for kind in BatchKind},
}


class BatchFlow(Flow[Batch]):
    """Runs a batch's steps; its requests show what it waits for and that it is parked."""

    name = "batch"
    model = Batch
    task = "tasks.batches.advance"
    rows_per_message = 8  # a step is some calls to other services: more workers share many batches
    foreseen = (CallFailed, CallRefused)

    def __init__(self, context: PoolContext) -> None:
        super().__init__(context.sessions, context.publish, context.settings.lease_sec)
        self.context = context

    def step(self, row: Batch) -> Outcome:
        return STEPS[BatchKind(row.kind), BatchStatus(row.status)](self.context, row)

    def outcome_of(self, row: Batch, error: Exception) -> Outcome | None:
        if isinstance(error, WalkHalted):  # the walk waits for ops, and so does what shares its lane
            return Wait(HALTED_AGAIN_SEC, reason(error.code, error.detail))
        return None

    def waits(self, session: Session, done: Sequence[tuple[Batch, Wait]]) -> None:
        for row, outcome in done:
            if code_of(outcome.reason) != code_of(row.reason):
                tell_members(session, row, outcome.reason)

    def parked(self, session: Session, done: Sequence[tuple[Batch, Park]]) -> None:
        for row, outcome in done:
            park_members(session, row, outcome.reason)


def advance(context: PoolContext, batch_id: str | None = None, *, early: bool = False) -> int:
    """Run the steps of the named due batch, or of some due ones; returns how many were taken. `early`: before its time."""
    return runner.advance(BatchFlow(context), row_id=batch_id, early=early)


def transaction_ended(context: PoolContext, message_id: str | None = None) -> int:
    """What the relayer hints at: a transaction has ended, and the batch or payout that waits for it looks before its time."""
    with transaction(context.sessions) as session:
        batch_id = session.scalar(select(BatchTransaction.batch_id).where(BatchTransaction.message_id == message_id))
        sent = select(PayoutTransaction.request_id).where(PayoutTransaction.message_id == message_id)
        request_id = None if batch_id is not None else session.scalar(sent)
    if request_id is not None:
        return requests.advance(context, request_id, early=True)
    if batch_id is None:
        return 0  # another caller's message
    return advance(context, batch_id, early=True)
