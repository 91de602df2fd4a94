"""Run the due step of a batch, whatever its kind: the dispatch from (kind, status) to the flow's function."""

from apps.pool.leases import claim
from apps.pool.models import Batch
from tasks import celery
from tasks.claims import CLAIM_STEPS
from tasks.engine import Step, run_batch, worker_context
from tasks.stake import STAKE_STEPS
from tasks.unstake import UNSTAKE_STEPS

STEPS: dict[tuple[str, str], Step] = {
    **{("stake", status): step for status, step in STAKE_STEPS.items()},
    **{("unstake", status): step for status, step in UNSTAKE_STEPS.items()},
    **{("claim", status): step for status, step in CLAIM_STEPS.items()},
}


@celery.task(name="tasks.batches.advance")
def advance(batch_id: str | None = None) -> int:
    """Run the step of the named due batch, or of one due batch; returns how many were taken."""
    context = worker_context()
    rows = claim(context.sessions, Batch, context.settings.lease_sec, row_id=batch_id)
    for row in rows:
        run_batch(context, row, STEPS[(row.kind, row.status)])
    return len(rows)
