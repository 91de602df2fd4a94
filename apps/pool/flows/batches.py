"""Run the due step of a batch, whatever its kind: the dispatch from (kind, status) to the flow's function."""

from sqlalchemy import select

from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.engine import Step, run_batch
from apps.pool.flows.leases import claim
from apps.pool.flows.releasing import release
from apps.pool.flows.stake import STAKE_STEPS
from apps.pool.flows.unstake import UNSTAKE_STEPS
from apps.pool.flows.withdrawal_claim import CLAIM_STEPS
from apps.pool.models import Batch, BatchTransaction

STEPS: dict[tuple[str, str], Step] = {
    **{("stake", status): step for status, step in STAKE_STEPS.items()},
    **{("unstake", status): step for status, step in UNSTAKE_STEPS.items()},
    **{("claim", status): step for status, step in CLAIM_STEPS.items()},
    **{(kind, "needs_attention"): release for kind in ("stake", "unstake", "claim")},
}


def advance(context: PoolContext, batch_id: str | None = None) -> int:
    """Run the step of the named due batch, or of one due batch; returns how many were taken."""
    rows = claim(context.sessions, Batch, context.settings.lease_sec, row_id=batch_id)
    for row in rows:
        run_batch(context, row, STEPS[(row.kind, row.status)])
    return len(rows)


def transaction_ended(context: PoolContext, message_id: str | None = None) -> int:
    """What the relayer hints at: a transaction has ended, and the batch that waits for it looks before its time."""
    with transaction(context.sessions) as session:
        batch_id = session.scalar(
            select(BatchTransaction.batch_id).where(BatchTransaction.message_id == message_id)
        )  # fmt: skip
    if batch_id is None:
        return 0  # a payout of ops, or a message of somebody else's
    rows = claim(context.sessions, Batch, context.settings.lease_sec, row_id=batch_id, early=True)
    for row in rows:
        run_batch(context, row, STEPS[(row.kind, row.status)])
    return len(rows)
