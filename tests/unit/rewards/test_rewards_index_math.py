"""The index by hand-reckoned examples; the laws over all inputs are in ``tests/property/rewards``."""

import pytest

from apps.rewards.index_math import (
    GWEI,
    Accrued,
    LossExceedsPosition,
    NothingStaked,
    NotParked,
    P,
    PoolState,
    PositionState,
    StakeBelowZero,
    accrue,
    bearable_fall,
    bearable_loss,
    change_stake,
    claim,
    pending_wei,
    release,
    reward_debt,
    settle,
    worth,
)
from tests.support.conservation import conserved, dust_wei

ETHER = 10**18


def test_accrue__gain__index_and_remainder_are_the_quotient() -> None:
    pool, parts = accrue(PoolState(weight=3), 10, 0)
    assert (pool.index, pool.remainder, pool.accrued) == (10 * P // 3, 10 * P % 3, 10)
    assert (parts.fee, parts.distributed, parts.parked) == (0, 10, 0)


def test_accrue__loss__is_floored_not_truncated() -> None:
    pool, parts = accrue(PoolState(weight=3), -10, 0)
    assert pool.index == -(10 * P // 3) - 1
    assert 0 <= pool.remainder < 3
    assert pool.index * 3 + pool.remainder == -10 * P
    assert (parts.distributed, pool.accrued, pool.deficit) == (-10, -10, 10)


def test_accrue__nothing_staked__is_parked_signed() -> None:
    pool, parts = accrue(PoolState(), 10, 1000)
    assert (parts.fee, parts.distributed, parts.parked) == (1, 0, 9)
    assert (pool.index, pool.parked, pool.accrued) == (0, 9, 9)
    pool, parts = accrue(pool, -12, 1000)
    assert (pool.parked, pool.accrued, pool.deficit) == (-3, -3, 12)


def test_accrue__ten_thousand_times_seven_wei_on_ten_ether__same_as_once() -> None:
    once, _ = accrue(PoolState(weight=10 * ETHER), 70_000, 0)
    pool = PoolState(weight=10 * ETHER)
    for _ in range(10_000):
        pool, _ = accrue(pool, 7, 0)
    assert pool == once


def test_fee__gain_below_a_whole_fee__fraction_is_carried() -> None:
    pool, parts = accrue(PoolState(weight=1), 19, 1000)
    assert (parts.fee, pool.fee_remainder) == (1, 9000)
    pool, parts = accrue(pool, 1, 1000)
    assert (parts.fee, pool.fee_remainder) == (1, 0)


def test_fee__after_a_loss__only_what_is_left_of_the_gain_bears_it() -> None:
    pool, _ = accrue(PoolState(weight=1), -400, 1000)
    pool, parts = accrue(pool, 399, 1000)
    assert (parts.fee, pool.deficit) == (0, 1)
    pool, parts = accrue(pool, 101, 1000)
    assert (parts.fee, pool.deficit) == (10, 0)


def test_release__some_of_the_parked__goes_to_the_weight_of_now_without_a_fee() -> None:
    pool, _ = accrue(PoolState(), 10, 0)
    pool, position = change_stake(pool, PositionState(), 5, 0)
    assert pending_wei(position, pool.index) == 0
    pool, _ = release(pool, 4)
    assert (pool.parked, pool.accrued, pending_wei(position, pool.index)) == (6, 10, 4)
    assert conserved(pool, [position])


def test_release__a_loss__is_borne_by_the_weight_of_now_and_counts_once_in_the_deficit() -> None:
    pool, _ = accrue(PoolState(), -10, 1000)
    pool, position = change_stake(pool, PositionState(), 100, 0)
    pool, _ = release(pool, -7)
    assert (pool.parked, pool.deficit, pending_wei(position, pool.index)) == (-3, 10, -7)
    assert conserved(pool, [position])
    for amount in (-4, 3, 0):
        with pytest.raises(NotParked):
            release(pool, amount)


def test_release__more_than_parked_or_nobody_there__refused() -> None:
    with pytest.raises(NotParked):
        release(PoolState(weight=1, parked=3), 4)
    with pytest.raises(NothingStaked):
        release(PoolState(parked=3), 3)


def test_settle__twice__same_as_once() -> None:
    position = PositionState(staked=7, exiting=3, snapshot=5, pending_scaled=-2)
    once = settle(position, 11)
    assert once.pending_scaled == -2 + 10 * 6
    assert settle(once, 11) == once
    assert pending_wei(once, 100) == pending_wei(position, 100)


def test_change_stake__exiting__still_weighs() -> None:
    pool, position = change_stake(PoolState(), PositionState(), 10, 0)
    pool, position = change_stake(pool, position, -4, 4)
    assert (pool.weight, position.staked, position.exiting) == (10, 6, 4)


@pytest.mark.parametrize(("staked", "exiting"), [(-11, 0), (0, -1), (-11, 11)])
def test_change_stake__more_than_there_is__refused(staked: int, exiting: int) -> None:
    pool, position = change_stake(PoolState(), PositionState(), 10, 0)
    with pytest.raises(StakeBelowZero):
        change_stake(pool, position, staked, exiting)


def test_change_stake__everything_left__fraction_returns_and_whole_wei_stay_claimable() -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 1, 0)
    pool, ben = change_stake(pool, PositionState(), 2, 0)
    pool, _ = accrue(pool, 4, 0)
    pool, ann = change_stake(pool, ann, -1, 0)
    assert (ann.pending_scaled, pool.weight) == (P, 2)
    assert conserved(pool, [ann, ben])
    assert dust_wei(pool, [ann, ben]) == 4 - 1 - 2


def test_claim__positive__moves_whole_wei_into_staked_and_keeps_the_fraction() -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 2, 0)
    pool, ben = change_stake(pool, PositionState(), 1, 0)
    pool, _ = accrue(pool, 5, 0)
    pool, ann, moved = claim(pool, ann)
    assert (moved.claimed, moved.staked_delta, moved.exiting_delta) == (3, 3, 0)
    assert (ann.staked, ann.claimed, pool.claimed, pool.weight) == (5, 3, 3, 6)
    assert 0 < ann.pending_scaled < P
    assert claim(pool, ann)[2].claimed == 0
    assert conserved(pool, [ann, ben])


def test_claim__loss_beyond_staked__comes_off_exiting() -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 10, 0)
    pool, ann = change_stake(pool, ann, -7, 7)
    pool, _ = accrue(pool, -5, 0)
    pool, ann, moved = claim(pool, ann)
    assert (moved.claimed, moved.staked_delta, moved.exiting_delta) == (-5, -3, -2)
    assert (ann.staked, ann.exiting, ann.claimed, pool.weight) == (0, 5, -5, 5)
    assert conserved(pool, [ann])


def test_claim__loss_beyond_the_position__refused() -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 10, 0)
    pool, _ = accrue(pool, -11, 0)
    with pytest.raises(LossExceedsPosition):
        claim(pool, ann)


def test_change_stake__loss_pending__leaves_up_to_the_worth_only() -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 100, 0)
    pool, ben = change_stake(pool, PositionState(), 100, 0)
    pool, _ = accrue(pool, -19, 0)
    assert worth(ann, pool.index) == 90
    with pytest.raises(StakeBelowZero):
        change_stake(pool, ann, -91, 0)
    with pytest.raises(StakeBelowZero):
        change_stake(pool, ann, -100, 0)
    pool, moved = change_stake(pool, ann, -100, 100)
    with pytest.raises(StakeBelowZero):
        change_stake(pool, moved, 0, -91)
    pool, left = change_stake(pool, moved, 0, -90)
    assert (left.weight, worth(left, pool.index)) == (10, 0)
    pool, left, _ = claim(pool, left)
    assert (left.weight, left.pending_scaled) == (0, 0)
    assert conserved(pool, [left, ben])


def test_bearable_fall__positions_of_different_worth__the_poorest_decides() -> None:
    rich = PositionState(staked=4, exiting=3, snapshot=0, pending_scaled=5 * P)
    poor = PositionState(staked=3, exiting=4, snapshot=0, pending_scaled=-2 * P)
    gone = PositionState(snapshot=0, pending_scaled=9 * P)
    assert bearable_fall([rich, gone], 0) == 12 * P // 7
    assert bearable_fall([rich, poor, gone], 0) == 5 * P // 7
    assert bearable_fall([poor], -P) == 0  # it owes nine and is worth seven
    assert bearable_fall([gone], 0) == 0


def test_bearable_loss__to_the_wei__with_what_the_pool_carries() -> None:
    assert bearable_loss(PoolState(weight=7), 5 * P // 7) == 4  # a hair less than five
    assert bearable_loss(PoolState(weight=7, remainder=5 * P - 7 * (5 * P // 7)), 5 * P // 7) == 5
    assert bearable_loss(PoolState(weight=7, remainder=2 * P), 0) == 2


@pytest.mark.parametrize(("loss", "borne"), [(-99, -99), (-100, -100), (-101, -100), (-5 * GWEI, -100)])
def test_accrue__loss_about_as_great_as_the_stake__what_cannot_be_borne_is_parked(loss: int, borne: int) -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 100, 0)
    pool, parts = accrue(pool, loss, 1000, bearable_fall([ann], pool.index))
    assert parts == Accrued(0, borne, loss - borne, settles=loss < borne)
    assert (pool.accrued, pool.parked, pool.deficit) == (loss, loss - borne, -loss)
    assert worth(ann, pool.index) == 100 + borne
    assert conserved(pool, [ann])


def test_accrue__loss_and_a_position_worth_nothing__all_is_parked_and_settling_frees_the_rest() -> None:
    pool, ann = change_stake(PoolState(), PositionState(), 100, 0)
    pool, ben = change_stake(pool, PositionState(), 100, 0)
    pool, _ = accrue(pool, -20, 0)
    pool, ann = change_stake(pool, ann, -90, 0)
    assert (ann.weight, worth(ann, pool.index)) == (10, 0)
    pool, parts = accrue(pool, -9, 0, bearable_fall([ann, ben], pool.index))
    assert parts == Accrued(0, 0, -9, settles=True)
    pool, ann, _ = claim(pool, ann)
    pool, ben, _ = claim(pool, ben)
    assert (ann.weight, ben.weight) == (0, 90)
    pool, parts = release(pool, -9, bearable_fall([ann, ben], pool.index))
    assert parts == Accrued(0, -9, 9)
    assert (pool.parked, worth(ben, pool.index)) == (0, 81)
    assert conserved(pool, [ann, ben])


def test_release__a_loss_greater_than_the_positions_can_bear__refused() -> None:
    pool, ann = change_stake(PoolState(parked=-200, accrued=-200), PositionState(), 100, 0)
    fall = bearable_fall([ann], pool.index)
    with pytest.raises(LossExceedsPosition):
        release(pool, -101, fall)
    assert release(pool, -100, fall)[0].parked == -100


def test_settles__from_one_gwei_on__of_a_loss_distributed_whole() -> None:
    pool = PoolState(weight=ETHER, parked=-2 * GWEI)
    for loss, settles in ((1 - GWEI, False), (-GWEI, True)):
        assert accrue(pool, loss, 0, P)[1].settles == settles
        assert release(pool, loss, P)[1].settles == settles
    assert not accrue(pool, GWEI, 0)[1].settles
    assert not accrue(PoolState(), -GWEI, 0, 0)[1].settles
    assert not release(PoolState(weight=1, parked=GWEI), GWEI)[1].settles


def test_reward_debt__any_index__gives_pending_back() -> None:
    position = PositionState(staked=7, exiting=2, snapshot=-3 * P, pending_scaled=P // 2)
    for index in (-5 * P, 0, P // 3):
        assert (position.weight * index - reward_debt(position)) // P == pending_wei(position, index)


def test_worked_example__of_the_architecture_page__to_the_wei() -> None:
    """The table under "Reward mathematics" in ``docs/architecture.md``, line by line."""
    pool, a = change_stake(PoolState(), PositionState(), 2 * ETHER, 0)
    pool, b = change_stake(pool, PositionState(), ETHER, 0)
    seen = []

    def note(fee: int = 0) -> None:
        assert conserved(pool, [a, b])
        pending = pending_wei(a, pool.index), pending_wei(b, pool.index)
        seen.append((fee, pool.deficit, *pending, dust_wei(pool, [a, b])))

    pool, parts = accrue(pool, 1001, 1000)
    note(parts.fee)
    pool, a, _ = claim(pool, a)
    note()
    pool, parts = accrue(pool, -400, 1000)
    note(parts.fee)
    pool, parts = accrue(pool, 500, 1000)
    note(parts.fee)
    pool, parts = accrue(pool, -3 * 10**16, 1000)
    assert parts.distributed <= -GWEI
    note(parts.fee)
    pool, a, _ = claim(pool, a)
    pool, b, _ = claim(pool, b)
    note()
    assert seen == [
        (100, 0, 600, 300, 1),
        (0, 0, 0, 300, 1),
        (0, 400, -267, 167, 1),
        (10, 0, 60, 330, 1),
        (0, 3 * 10**16, -19_999_999_999_999_942, -9_999_999_999_999_668, 1),
        (0, 3 * 10**16, 0, 0, 1),
    ]
    assert (a.staked, b.staked) == (1_980_000_000_000_000_658, 990_000_000_000_000_332)
