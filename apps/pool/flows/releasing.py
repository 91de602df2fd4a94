"""A parked batch that ops have released: it did nothing on chain, so its requests go back to where they waited."""

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.flow.outcome import Advance, Outcome, Park
from apps.flow.row import reason
from apps.pool.context import PoolContext
from apps.pool.errors import BatchHasEffect
from apps.pool.flows import stake, unstake, withdrawal_claim
from apps.pool.models import Batch, Resolution
from apps.pool.states import BatchKind, BatchStatus, ResolutionStatus
from apps.pool.walk.resolutions import RELEASE_BATCH, Resolutions
from apps.pool.walk.resolve import mark_applied


def release(context: PoolContext, batch: Batch) -> Outcome:
    """Undo what the batch did in the books and let its requests go; looked at again first, as time has passed."""
    with transaction(context.sessions) as session:
        decided = session.scalars(
            select(Resolution).where(
                Resolution.batch_id == batch.id,
                Resolution.action == RELEASE_BATCH,
                Resolution.status == ResolutionStatus.APPROVED,
            )
        ).first()
    if decided is None:
        return Park(batch.reason or reason("attempts_exhausted", "It was parked; no operator has released it."))
    try:
        Resolutions(context).refuse_effects(batch)
    except BatchHasEffect as error:
        return Park(reason(error.code, error.detail))
    advance = _undo(context, batch)
    write = advance.write

    def write_and_mark(session: Session) -> None:
        if write is not None:
            write(session)
        mark_applied(session, decided)

    return replace(advance, write=write_and_mark)


def _undo(context: PoolContext, batch: Batch) -> Advance:
    code, detail = "released", "Ops released the batch; its requests wait for the next one."
    if batch.kind == BatchKind.CLAIM:
        return withdrawal_claim.drop(batch, code, detail)
    if batch.kind == BatchKind.UNSTAKE and batch.parked_status == BatchStatus.REQUESTING:
        return unstake.restore(context, batch, code, detail)
    return stake.requeue(batch, code, detail)
