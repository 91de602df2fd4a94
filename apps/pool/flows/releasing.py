"""A parked batch that ops have released: it did nothing on chain, so its requests go back to where they waited."""

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.errors import BatchHasEffect
from apps.pool.flows import stake, unstake, withdrawal_claim
from apps.pool.flows.leases import Advance, Outcome, Park, reason
from apps.pool.models import Batch, Resolution
from apps.pool.walk.resolutions import RELEASE_BATCH, Resolutions
from apps.pool.walk.resolve import mark_applied

LEFT_THE_INDEX = "requesting"


def release(context: PoolContext, batch: Batch) -> Outcome:
    """Undo what the batch did in the books and let its requests go; looked at again first, as time has passed."""
    with transaction(context.sessions) as session:
        decided = session.scalars(
            select(Resolution).where(
                Resolution.batch_id == batch.id, Resolution.action == RELEASE_BATCH, Resolution.status == "approved"
            )
        ).first()
    if decided is None:
        return Park(batch.reason or reason("attempts_exhausted", "It was parked; nobody has released it."))
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
    if batch.kind == "claim":
        return withdrawal_claim.drop(batch, code, detail)
    if batch.kind == "unstake" and batch.context.get("parked_status") == LEFT_THE_INDEX:
        return unstake.restore(context, batch, code, detail)
    return stake.requeue(batch, code, detail)
