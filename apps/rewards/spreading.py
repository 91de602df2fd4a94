"""What an accrual or a release leaves in the database: its event, the pool's row, and the settlement of a loss."""

from dataclasses import dataclass, replace

import structlog
from sqlalchemy.orm import Session

from apps.clients.shapes.rewards import Accrual
from apps.rewards import index_math, store
from apps.rewards.index_math import PoolState

# A settlement's name (`<message_id>:settle:<n>`) becomes part of names of movements (`…:cut:<request id>`), which must
# still be message ids of at most 200 characters.
_LONGEST_PREFIX = 140

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Cause:
    """What an event of the log was made for."""

    kind: str
    message_id: str
    pool_id: str
    source: str
    new_rewards_wei: int
    fee_bps: int


def spread(session: Session, cause: Cause, before: PoolState, pool: PoolState, parts: index_math.Accrued) -> Accrual:
    """Write down what was distributed or parked, and settle a loss where that is due."""
    event_id, created_at = store.insert_event(
        session,
        kind=cause.kind,
        pool_id=cause.pool_id,
        message_id=cause.message_id,
        source=cause.source,
        new_rewards_wei=cause.new_rewards_wei,
        fee_bps=cause.fee_bps,
        fee_wei=parts.fee,
        distributed_wei=parts.distributed,
        parked_wei=parts.parked,
        weight_wei=before.weight,
        acc_reward_per_share=pool.index,
    )
    accrual = Accrual(
        id=event_id,
        message_id=cause.message_id,
        pool_id=cause.pool_id,
        source=cause.source,
        new_rewards_wei=cause.new_rewards_wei,
        fee_wei=parts.fee,
        distributed_wei=parts.distributed,
        parked_wei=parts.parked,
        acc_reward_per_share=pool.index,
        weight_wei=before.weight,
        created_at=created_at,
    )
    if parts.settles and parts.parked < 0:
        log.warning("loss_parked", pool_id=cause.pool_id, message_id=cause.message_id, parked_wei=str(parts.parked))
    if parts.settles:
        name = cause.message_id if len(cause.message_id) <= _LONGEST_PREFIX else f"accrual:{event_id}"
        pool = _settle_loss(session, cause.pool_id, pool, f"{name}:settle:")
    store.save_pool(session, cause.pool_id, pool)
    return accrual


def bearable_fall(session: Session, pool_id: str, pool: PoolState, amount_wei: int) -> int | None:
    """How far a loss may lower the index (`store.bearable_fall`); None for a gain, or where no position has weight. The
    pool is locked.

    A loss of a few wei is limited, too, since the check is one statement that writes nothing, and losses are rare. If
    small losses went unchecked, they could take a position below zero, and no claim, settlement or great loss of that
    pool could be booked any more.
    """
    return store.bearable_fall(session, pool_id, pool.index) if amount_wei < 0 < pool.weight else None


def _settle_loss(session: Session, pool_id: str, pool: PoolState, prefix: str) -> PoolState:
    """Move every position's pending into its principal, so that stake after a loss is what it is worth."""
    settled = store.settle_all(session, pool_id, pool.index, prefix)
    log.info("loss_settled", pool_id=pool_id, events=f"{prefix}*", positions=settled.positions)
    return replace(
        pool,
        weight=pool.weight + settled.claimed,
        claimed=pool.claimed + settled.claimed,
        remainder=pool.remainder + settled.returned_scaled,
    )
