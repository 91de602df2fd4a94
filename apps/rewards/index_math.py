"""The reward index in whole numbers: no wei is lost, and the order of calls changes no position's reward.

The index ``acc_reward_per_share`` counts reward per wei of weight, scaled by P = 10^36. Both remainders are carried:
the pool's (what a division could not hand out) and each position's (its fraction of a wei). Increments are signed, and
every division is Python's `divmod`, which floors, so a loss is carried as exactly as a gain.

Words: *owed* is a position's scaled, not yet claimed reward; *pending* is its whole wei, floored. After every operation
``P * (accrued - parked) == P * sum(claimed) + sum(owed) + remainder``.

No position ever owes more than its principal: a loss takes the index down only as far as the poorest position can bear
(`bearable_fall`), and the rest is parked.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

P = 10**36
BPS = 10_000
GWEI = 10**9
# A loss from here on is settled into all positions before the next accrual; below it is operation dust.
SETTLE_LOSS_WEI = GWEI


@dataclass(frozen=True, slots=True)
class PoolState:
    """Amounts in wei but for `index` and `remainder` (scaled by P) and `fee_remainder` (ten-thousandths of a wei)."""

    weight: int = 0
    index: int = 0
    remainder: int = 0
    accrued: int = 0
    claimed: int = 0
    parked: int = 0
    deficit: int = 0
    fee_remainder: int = 0


@dataclass(frozen=True, slots=True)
class PositionState:
    """`snapshot` is the index at the last settlement, `pending_scaled` what was owed then, scaled by P."""

    staked: int = 0
    exiting: int = 0
    snapshot: int = 0
    pending_scaled: int = 0
    claimed: int = 0

    @property
    def weight(self) -> int:
        """What earns and bears: principal only, also while it is on its way out."""
        return self.staked + self.exiting


@dataclass(frozen=True, slots=True)
class Accrued:
    """Where an accrual went: ``new_rewards == fee + distributed + parked``.

    `settles` says that every position must be settled (`claim`) in the same transaction.
    """

    fee: int
    distributed: int
    parked: int
    settles: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """Whole wei that moved from pending into principal: ``claimed == staked_delta + exiting_delta``."""

    claimed: int
    staked_delta: int
    exiting_delta: int


class StakeBelowZero(ValueError):
    """A stake delta would take more out of a position than stands in it, or than it is worth after losses."""


class LossExceedsPosition(ValueError):
    """A position would owe more than it is worth."""


class NothingStaked(ValueError):
    """There is no weight to distribute to."""


class NotParked(ValueError):
    """Less is parked, or of the other sign, than was to be released."""


def accrue(pool: PoolState, new_rewards: int, fee_bps: int, fall: int | None = None) -> tuple[PoolState, Accrued]:
    """Spread a signed reward over all weight, or park it where there is none. Cost: one division.

    A gain first repays `deficit` (the sum of earlier losses), and only the rest bears the fee; the fee's fraction is
    carried, so that splitting a gain into pieces changes neither the fee nor the index.

    A loss lowers the index by `fall` (see `bearable_fall`) at most, and the rest of it is parked. All positions are
    settled after a loss of `SETTLE_LOSS_WEI` or more, and after any of which a part was parked: a position with no value
    left then gets weight 0. Otherwise its floor of 0 would limit the next fall of the index, and the release of what was
    parked. Without `fall` a loss has no limit.
    """
    fee, deficit, fee_remainder = 0, pool.deficit, pool.fee_remainder
    if new_rewards >= 0:
        repaid = min(deficit, new_rewards)
        deficit -= repaid
        fee, fee_remainder = divmod((new_rewards - repaid) * fee_bps + fee_remainder, BPS)
    else:
        deficit -= new_rewards
    net = new_rewards - fee
    distributed = net if pool.weight else 0
    if distributed < 0 and fall is not None:
        distributed = max(net, -bearable_loss(pool, fall))
    parked = net - distributed
    after = replace(
        pool, accrued=pool.accrued + net, parked=pool.parked + parked, deficit=deficit, fee_remainder=fee_remainder
    )
    if pool.weight == 0:
        return after, Accrued(fee, 0, parked)
    settles = distributed <= -SETTLE_LOSS_WEI or parked != 0
    return _distribute(after, distributed), Accrued(fee, distributed, parked, settles)


def release(pool: PoolState, amount: int, fall: int | None = None) -> tuple[PoolState, Accrued]:
    """Move parked wei, a gain or a loss, to the positions of today. Fee and deficit were reckoned when it was parked.

    Raises `NothingStaked`, `NotParked`, and `LossExceedsPosition` for a loss that lowers the index by more than `fall`.
    """
    if pool.weight == 0:
        raise NothingStaked
    if not (0 < amount <= pool.parked or pool.parked <= amount < 0):
        raise NotParked
    if amount < 0 and fall is not None and -amount > bearable_loss(pool, fall):
        raise LossExceedsPosition
    parts = Accrued(0, amount, -amount, settles=amount <= -SETTLE_LOSS_WEI)
    return _distribute(replace(pool, parked=pool.parked - amount), amount), parts


def bearable_fall(positions: Iterable[PositionState], index: int) -> int:
    """By how much the index may fall before a position owes more than its principal: the least of
    ``worth // weight``, both scaled, over all positions with weight; 0 where there is none."""
    lowest = lowest_standing(positions)
    return 0 if lowest is None else fall_at(lowest, index)


def lowest_standing(positions: Iterable[PositionState]) -> int | None:
    """The least `standing` of positions with weight; None where there is none."""
    return min((standing(each) for each in positions if each.weight), default=None)


def standing(position: PositionState) -> int:
    """What limits a fall of the index, of a position with weight: ``P + index + standing == worth // weight``, both
    scaled. It is made of the position alone, so that a least one that is remembered holds wherever the index goes."""
    return position.pending_scaled // position.weight - position.snapshot


def fall_at(lowest: int, index: int) -> int:
    """`bearable_fall` where no standing is below `lowest`."""
    return max(0, P + index + lowest)


def bearable_loss(pool: PoolState, fall: int) -> int:
    """The greatest loss in wei that lowers the index by at most `fall`; what the pool carries as remainder bears, too:
    ``ceil((loss * P - remainder) / weight) <= fall``, solved for the loss."""
    return (fall * pool.weight + pool.remainder) // P


def owed(position: PositionState, index: int) -> int:
    """Scaled reward not yet claimed, at this index; as a difference, since ``weight * index`` would not fit a
    column."""
    return position.pending_scaled + position.weight * (index - position.snapshot)


def pending_wei(position: PositionState, index: int) -> int:
    """Whole wei a claim would move now, signed, floored."""
    return owed(position, index) // P


def worth(position: PositionState, index: int) -> int:
    """Whole wei that the position could take out now: principal and pending, signed, floored."""
    return position.weight + pending_wei(position, index)


def reward_debt(position: PositionState) -> int:
    """MasterChef's term, scaled: ``pending == (weight * acc_reward_per_share - reward_debt) // P``."""
    return position.weight * position.snapshot - position.pending_scaled


def settle(position: PositionState, index: int) -> PositionState:
    """Write down what is owed at this index. It changes no reward, however often it is done."""
    return replace(position, pending_scaled=owed(position, index), snapshot=index)


def change_stake(
    pool: PoolState, position: PositionState, staked_delta: int, exiting_delta: int
) -> tuple[PoolState, PositionState]:
    """Settle, then change the principal.

    Weight leaves only up to what the position is worth, a loss that is still pending included. Raises `StakeBelowZero`.
    """
    after = PositionState(
        staked=position.staked + staked_delta,
        exiting=position.exiting + exiting_delta,
        snapshot=pool.index,
        pending_scaled=owed(position, pool.index),
        claimed=position.claimed,
    )
    too_poor = after.weight < position.weight and worth(after, pool.index) < 0
    if after.staked < 0 or after.exiting < 0 or too_poor:
        raise StakeBelowZero
    return _return_dust(replace(pool, weight=pool.weight + staked_delta + exiting_delta), after)


def claim(pool: PoolState, position: PositionState) -> tuple[PoolState, PositionState, Claimed]:
    """Settle, then move pending's whole wei, signed, into principal; the fraction stays with the position.

    A loss comes off `staked` first, and what that cannot bear off `exiting`. Raises `LossExceedsPosition`.
    """
    settled = settle(position, pool.index)
    whole, fraction = divmod(settled.pending_scaled, P)
    staked_delta = max(whole, -settled.staked)
    exiting_delta = whole - staked_delta
    if settled.exiting + exiting_delta < 0:
        raise LossExceedsPosition
    after = replace(
        settled,
        staked=settled.staked + staked_delta,
        exiting=settled.exiting + exiting_delta,
        pending_scaled=fraction,
        claimed=settled.claimed + whole,
    )
    grown = replace(pool, weight=pool.weight + whole, claimed=pool.claimed + whole)
    return *_return_dust(grown, after), Claimed(whole, staked_delta, exiting_delta)


def total_owed(pool: PoolState) -> int:
    """The sum of all positions' `owed`, from the pool alone (conservation, rearranged)."""
    return P * (pool.accrued - pool.parked - pool.claimed) - pool.remainder


def _distribute(pool: PoolState, net: int) -> PoolState:
    step, remainder = divmod(net * P + pool.remainder, pool.weight)
    return replace(pool, index=pool.index + step, remainder=remainder)


def _return_dust(pool: PoolState, position: PositionState) -> tuple[PoolState, PositionState]:
    """A position without weight gives its fraction of a wei back to the pool; its whole pending wei stay claimable."""
    if position.weight != 0:
        return pool, position
    fraction = position.pending_scaled % P
    return (
        replace(pool, remainder=pool.remainder + fraction),
        replace(position, pending_scaled=position.pending_scaled - fraction),
    )
