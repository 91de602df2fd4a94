"""What an accrual or a release leaves in the database: its event, the pool's row, and the settlement of a loss."""

from dataclasses import dataclass, replace

import structlog
from sqlalchemy.orm import Session

from apps.clients.shapes.rewards import Accrual
from apps.rewards import index_math, store
from apps.rewards.index_math import PoolState
from apps.rewards.settlement import Unsettled
from apps.rewards.store import HeldPool, Settling

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


def hold_settled(session: Session, pool_id: str) -> HeldPool:
    """Lock a pool whose index is about to move. Raises `Unsettled` while a loss is being settled."""
    held = store.lock_pool(session, pool_id)
    if held.settling is not None:
        raise Unsettled
    return held


def spread(
    session: Session, cause: Cause, held: HeldPool, pool: PoolState, parts: index_math.Accrued
) -> tuple[Accrual, HeldPool]:
    """Write down what was distributed or parked; the pool returned, with a loss to settle where that is due, is still to be
    saved."""
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
        weight_wei=held.state.weight,
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
        weight_wei=held.state.weight,
        created_at=created_at,
    )
    if parts.settles and parts.parked < 0:
        log.warning("loss_parked", pool_id=cause.pool_id, message_id=cause.message_id, parked_wei=str(parts.parked))
    name = cause.message_id if len(cause.message_id) <= _LONGEST_PREFIX else f"accrual:{event_id}"
    return accrual, replace(held, state=pool, settling=Settling(f"{name}:settle:") if parts.settles else None)
