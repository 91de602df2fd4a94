"""What must hold of a pool and its positions after every operation; said once for all tests of the index."""

from collections.abc import Iterable

from apps.rewards.index_math import P, PoolState, PositionState, owed


def conserved(pool: PoolState, positions: Iterable[PositionState]) -> bool:
    """``P * (accrued - parked) == P * sum(claimed) + sum(owed) + remainder``, and the weights add up."""
    held = list(positions)
    claimed = sum(position.claimed for position in held)
    due = sum(owed(position, pool.index) for position in held)
    return (
        P * (pool.accrued - pool.parked) == P * claimed + due + pool.remainder
        and pool.claimed == claimed
        and pool.weight == sum(position.weight for position in held)
    )


def dust_wei(pool: PoolState, positions: Iterable[PositionState]) -> int:
    """Whole wei of all fractions and the remainder: ``accrued - parked - claimed - sum(pending)``, never negative."""
    fractions = sum(owed(position, pool.index) % P for position in positions) + pool.remainder
    return fractions // P
