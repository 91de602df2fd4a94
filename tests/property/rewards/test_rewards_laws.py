"""Laws of the index over generated inputs, by the invariants' numbers: R2, R3, R4, R5, R6, R10, R11, R13, R19."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from apps.rewards import index_math
from apps.rewards.index_math import P, PoolState, PositionState
from tests.support.conservation import conserved, dust_wei

AMOUNTS = st.one_of(st.integers(0, 20), st.integers(0, 10**20), st.integers(0, 2**250))
SIGNED = st.one_of(st.integers(-20, 20), st.integers(-(10**20), 10**20), st.integers(-(2**250), 2**250))
WEIGHTS = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 10**24)), min_size=1, max_size=6)
BPS = st.integers(0, 10_000)

Positions = list[PositionState]


def staked(weights: Sequence[int]) -> tuple[PoolState, Positions]:
    pool, positions = PoolState(), []
    for weight in weights:
        pool, position = index_math.change_stake(pool, PositionState(), weight, 0)
        positions.append(position)
    return pool, positions


def accrue_all(pool: PoolState, amounts: Sequence[int], fee_bps: int = 0) -> tuple[PoolState, int]:
    """The pool after all of them, and the sum of their fees."""
    fees = 0
    for amount in amounts:
        pool, parts = index_math.accrue(pool, amount, fee_bps)
        assert amount == parts.fee + parts.distributed + parts.parked
        fees += parts.fee
    return pool, fees


@given(weights=WEIGHTS, amounts=st.lists(SIGNED, max_size=8))
def test_r2_r3__signed_accruals__whole_wei_add_up_and_dust_is_below_one_per_position(
    weights: list[int], amounts: list[int]
) -> None:
    pool, positions = staked(weights)
    pool, _ = accrue_all(pool, amounts)
    pending = sum(index_math.pending_wei(position, pool.index) for position in positions)
    dust = dust_wei(pool, positions)
    assert pending + dust == pool.accrued == sum(amounts)
    assert 0 <= dust <= len(positions)
    assert conserved(pool, positions)


@given(weights=WEIGHTS, steps=st.lists(st.tuples(SIGNED, st.lists(st.integers(0, 5), max_size=4)), max_size=6))
def test_r4__settled_by_anybody_at_any_time__nobody_gains_or_loses(
    weights: list[int], steps: list[tuple[int, list[int]]]
) -> None:
    pool, lazy = staked(weights)
    eager = list(lazy)
    for amount, poked in steps:
        pool, _ = index_math.accrue(pool, amount, 0)
        for number in poked:
            index = number % len(eager)
            eager[index] = index_math.settle(eager[index], pool.index)
    assert [index_math.owed(position, pool.index) for position in lazy] == [
        index_math.owed(position, pool.index) for position in eager
    ]


@given(weights=WEIGHTS, amounts=st.lists(SIGNED, max_size=8))
def test_r5__signed_accruals_at_one_weight__same_index_as_their_sum(weights: list[int], amounts: list[int]) -> None:
    pool, _ = staked(weights)
    pieces, _ = accrue_all(pool, amounts)
    whole, _ = index_math.accrue(pool, sum(amounts), 0)
    assert replace(pieces, deficit=0) == replace(whole, deficit=0)


@given(
    weights=WEIGHTS,
    before=st.lists(SIGNED, max_size=3),
    pieces=st.lists(AMOUNTS, min_size=1, max_size=8),
    sign=st.sampled_from([1, -1]),
    fee_bps=BPS,
)
def test_r5_r19__one_increment_in_pieces__same_state_and_same_fee(
    weights: list[int], before: list[int], pieces: list[int], sign: int, fee_bps: int
) -> None:
    pool, _ = staked(weights)
    pool, _ = accrue_all(pool, before, fee_bps)
    split, split_fees = accrue_all(pool, [sign * piece for piece in pieces], fee_bps)
    whole, parts = index_math.accrue(pool, sign * sum(pieces), fee_bps)
    assert (split, split_fees) == (whole, parts.fee)


@given(amounts=st.lists(SIGNED, max_size=10), fee_bps=BPS)
def test_r19__any_history__fee_is_the_floor_of_the_gains_left_after_the_deficit(
    amounts: list[int], fee_bps: int
) -> None:
    bearing = deficit = 0
    for amount in amounts:
        repaid = min(deficit, max(amount, 0))
        bearing += max(amount, 0) - repaid
        deficit += max(-amount, 0) - repaid
    pool, fees = accrue_all(PoolState(), amounts, fee_bps)
    assert (fees, pool.deficit) == (bearing * fee_bps // 10_000, deficit)
    assert pool.parked == pool.accrued == sum(amounts) - fees


@given(
    weights=st.lists(st.integers(1, 10**20), min_size=2, max_size=5),
    amount=st.integers(-(10**6), 10**20),
    changes=st.lists(st.tuples(st.sampled_from(["add", "move", "claim"]), st.integers(0, 10**18)), max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_r6__different_users_between_two_accruals__in_any_order(
    weights: list[int], amount: int, changes: list[tuple[str, int]], order: object
) -> None:
    base = 10**7  # more than the greatest loss, so that nobody is refused
    pool, positions = staked([base + weight for weight in weights])
    pool, _ = index_math.accrue(pool, amount, 0)
    work = list(enumerate(changes[: len(positions)]))

    def run(queue: list[tuple[int, tuple[str, int]]]) -> tuple[PoolState, Positions]:
        after, held = pool, list(positions)
        for number, (what, wei) in queue:
            if what == "claim":
                after, held[number], _ = index_math.claim(after, held[number])
            elif what == "add":
                after, held[number] = index_math.change_stake(after, held[number], wei, 0)
            else:
                part = wei % held[number].staked
                after, held[number] = index_math.change_stake(after, held[number], -part, part)
        return after, held

    shuffled = list(work)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert run(work) == run(shuffled)


@given(weights=WEIGHTS, amount=AMOUNTS, stake=st.integers(0, 10**24))
def test_r10__claim_and_stake__in_either_order_and_claiming_twice_is_once(
    weights: list[int], amount: int, stake: int
) -> None:
    pool, (position, *others) = staked(weights)
    pool, _ = index_math.accrue(pool, amount, 0)
    claimed_pool, claimed_position, moved = index_math.claim(pool, position)
    first = index_math.change_stake(claimed_pool, claimed_position, stake, 0)
    staked_pool, staked_position = index_math.change_stake(pool, position, stake, 0)
    assert index_math.claim(staked_pool, staked_position) == (*first, moved)
    again_pool, again_position, nothing = index_math.claim(claimed_pool, claimed_position)
    assert (again_pool, again_position, nothing.claimed) == (claimed_pool, claimed_position, 0)
    assert conserved(again_pool, [again_position, *others])


@given(parked=st.integers(1, 2**250), later=AMOUNTS)
def test_r11__first_position_of_one_wei__gets_none_of_what_was_parked(parked: int, later: int) -> None:
    pool, _ = index_math.accrue(PoolState(), parked, 0)
    pool, position = index_math.change_stake(pool, PositionState(), 1, 0)
    pool, _ = index_math.accrue(pool, later, 0)
    assert index_math.pending_wei(position, pool.index) == later
    assert pool.parked == parked


@given(weights=WEIGHTS, amounts=st.lists(AMOUNTS, max_size=6))
def test_r13__everybody_claims_and_leaves__rows_are_zero_and_all_dust_is_the_pools(
    weights: list[int], amounts: list[int]
) -> None:
    pool, positions = staked(weights)
    pool, _ = accrue_all(pool, amounts)
    for number, position in enumerate(positions):
        pool, claimed, _ = index_math.claim(pool, position)
        pool, positions[number] = index_math.change_stake(pool, claimed, -claimed.staked, 0)
    for position in positions:
        assert (position.weight, position.pending_scaled) == (0, 0)
    assert pool.weight == 0
    assert pool.remainder == P * (pool.accrued - pool.claimed)
    assert 0 <= pool.remainder <= P * len(positions)
