"""What limits a loss: the position that can bear least of it (`index_math.standing`).

A floor of all standings is kept on the pool's row by everything that writes a position, so that a loss reads none of them,
unless it is as great as what stands above that floor: then all of them are looked at, ahead of the lock.
"""

from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.wei import exact_int
from apps.rewards import index_math, store
from apps.rewards.models import RewardEvent
from apps.rewards.store import HeldPool


@dataclass(frozen=True)
class Scan:
    """The least standing of all positions when `event_id` was the pool's newest event."""

    event_id: int
    lowest: int | None


def scan_ahead(sessions: Sessions, pool_id: str, amount_wei: int) -> Scan | None:
    """Before the pool is locked for a loss that the remembered floor may not bear: the least standing as of now."""
    if amount_wei >= 0:
        return None
    with transaction(sessions) as session:
        held = store.look_at_pool(session, pool_id)
        if held is None or held.state.weight == 0 or _bears(held, amount_wei):
            return None
    return _scan(sessions, pool_id)


def with_standing(session: Session, held: HeldPool, amount_wei: int, ahead: Scan | None) -> HeldPool:
    """Before a loss: the pool with the least standing of its positions, as exactly as this loss needs it.

    What is remembered is a floor. A loss that it bears is borne, whatever is exact. One that it does not bear, which is as
    great as all stake, or before which nothing is remembered, costs a scan: made `ahead`, and corrected by what has
    changed since. Only where that has no answer either is it made again, under the lock.

    A loss of a few wei is limited, too. If small losses went unchecked, they could take a position below zero, and no
    claim, settlement or great loss of that pool could be booked any more.
    """
    if amount_wei >= 0 or held.state.weight == 0 or _bears(held, amount_wei):
        return held
    if ahead is not None:
        lowest, exact = _lowest_since(session, held.pool_id, ahead)
        corrected = replace(held, lowest=lowest)
        if exact or _bears(corrected, amount_wei):
            return corrected
    return replace(held, lowest=lowest_standing(session, held.pool_id))


def bearable_fall(held: HeldPool, amount_wei: int) -> int | None:
    """How far a loss may lower the index; None for a gain, or where no position has weight."""
    if amount_wei >= 0 or held.state.weight == 0:
        return None
    return 0 if held.lowest is None else index_math.fall_at(held.lowest, held.state.index)


_LOWEST_STANDING = store.statement_of("lowest_standing")


def lowest_standing(session: Session, pool_id: str) -> int | None:
    """`index_math.lowest_standing` of all positions; where the pool's row is locked they stay as they are."""
    store.allow_long_statements(session)
    found = session.execute(_LOWEST_STANDING, {"pool_id": pool_id}).scalar_one()
    return None if found is None else exact_int(found)


def _scan(sessions: Sessions, pool_id: str) -> Scan:
    """`lowest_standing` as of one moment, without a lock."""
    with transaction(sessions) as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        event_id = session.scalar(store.newest_event(pool_id)) or 0
        return Scan(event_id, lowest_standing(session, pool_id))


def _lowest_since(session: Session, pool_id: str, ahead: Scan) -> tuple[int | None, bool]:
    """A floor of all standings from a scan made before the pool was locked, and whether it is exactly the least one: it is
    where nothing has changed since."""
    changed = select(RewardEvent.user_id).where(RewardEvent.pool_id == pool_id, RewardEvent.id > ahead.event_id)
    users = [user for user in session.scalars(changed.distinct()) if user is not None]
    now = index_math.lowest_standing(store.lock_positions(session, pool_id, users).values())
    known = [each for each in (ahead.lowest, now) if each is not None]
    return min(known, default=None), not users


def _bears(held: HeldPool, amount_wei: int) -> bool:
    if held.lowest is None:
        return False
    fall = index_math.fall_at(held.lowest, held.state.index)
    return index_math.bearable_loss(held.state, fall) >= -amount_wei
