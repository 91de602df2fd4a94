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

# How many of the poorest positions a scan remembers. As long as one of them has not changed since, it tells what is least
# now; a second or two of claims and stakes rarely meets them all.
POOREST = 1_000


class Outdated(Exception):
    """A scan is missing, or too much has changed since: it is made again, while the pool is not locked."""


@dataclass(frozen=True)
class Scan:
    """The least standings of all positions, by user, least first, when `event_id` was the pool's newest event. `whole` says
    that no position is left out."""

    event_id: int
    poorest: dict[str, int]
    whole: bool


def scan_ahead(sessions: Sessions, pool_id: str, amount_wei: int) -> Scan | None:
    """Before the pool is locked for a loss that the remembered floor may not bear: the least standings as of now. None where
    none is needed, or a loss is being settled, so that the index cannot move yet."""
    if amount_wei >= 0:
        return None
    with transaction(sessions) as session:
        held = store.look_at_pool(session, pool_id)
        if held is None or held.settling is not None or held.state.weight == 0 or _bears(held, amount_wei):
            return None
    return _scan(sessions, pool_id)


def with_standing(session: Session, held: HeldPool, amount_wei: int, ahead: Scan | None) -> HeldPool:
    """Before a loss: the pool with the least standing of its positions, as exactly as this loss needs it.

    What is remembered is a floor. A loss that it bears is borne, whatever is exact. One that it does not bear, which is as
    great as all stake, or before which nothing is remembered, needs a scan that was made `ahead`; it is corrected by what has
    changed since. Raises `Outdated` where that tells nothing. All positions are never read here, as the pool is locked.

    A loss of a few wei is limited, too. If small losses went unchecked, they could take a position below zero, and no
    claim, settlement or great loss of that pool could be booked any more.
    """
    if amount_wei >= 0 or held.state.weight == 0 or _bears(held, amount_wei):
        return held
    if ahead is None:
        raise Outdated
    lowest, exact = _lowest_since(session, held.pool_id, ahead)
    corrected = replace(held, lowest=lowest)
    if not exact and not _bears(corrected, amount_wei):
        raise Outdated
    return corrected


def bearable_fall(held: HeldPool, amount_wei: int) -> int | None:
    """How far a loss may lower the index; None for a gain, or where no position has weight."""
    if amount_wei >= 0 or held.state.weight == 0:
        return None
    return 0 if held.lowest is None else index_math.fall_at(held.lowest, held.state.index)


_LOWEST_STANDINGS = store.statement_of("lowest_standings")


def lowest_standing(session: Session, pool_id: str) -> int | None:
    """`index_math.lowest_standing` of all positions, as one statement."""
    return next(iter(_lowest_standings(session, pool_id, 1).values()), None)


def _lowest_standings(session: Session, pool_id: str, most: int) -> dict[str, int]:
    store.allow_long_statements(session)
    rows = session.execute(_LOWEST_STANDINGS, {"pool_id": pool_id, "most": most})
    return {row.user_id: exact_int(row.standing) for row in rows}


def _scan(sessions: Sessions, pool_id: str) -> Scan:
    """The least standings as of one moment, without a lock."""
    with transaction(sessions) as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        event_id = session.scalar(store.newest_event(pool_id)) or 0
        poorest = _lowest_standings(session, pool_id, POOREST)
        return Scan(event_id, poorest, whole=len(poorest) < POOREST)


def _lowest_since(session: Session, pool_id: str, ahead: Scan) -> tuple[int | None, bool]:
    """A floor of all standings from a scan made before the pool was locked, and whether it is exactly the least one."""
    changed = select(RewardEvent.user_id).where(RewardEvent.pool_id == pool_id, RewardEvent.id > ahead.event_id)
    users = {user for user in session.scalars(changed.distinct()) if user is not None}
    now = index_math.lowest_standing(store.lock_positions(session, pool_id, users).values())
    unchanged = next((standing for user, standing in ahead.poorest.items() if user not in users), None)
    if unchanged is None and not ahead.whole:
        # Those that the scan left out stand at least as well as the last one that it names.
        last = max(ahead.poorest.values())
        return (last, False) if now is None or now > last else (now, True)
    return min((each for each in (unchanged, now) if each is not None), default=None), True


def _bears(held: HeldPool, amount_wei: int) -> bool:
    if held.lowest is None:
        return False
    fall = index_math.fall_at(held.lowest, held.state.index)
    return index_math.bearable_loss(held.state, fall) >= -amount_wei
