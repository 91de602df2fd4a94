"""Fees from what nodes answer, and when and by how much a price rises."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from apps.ethereum.jsonrpc import RpcError
from relayer.lifecycle.fees import (
    MOST_URGENT,
    PERCENTILES,
    Fees,
    Market,
    PendingAttempt,
    market,
    raised,
    urgency,
    why_raise,
    within,
)

GWEI = 10**9
AT = datetime(2026, 1, 1, tzinfo=UTC)
LATEST = {"baseFeePerGas": hex(GWEI), "timestamp": hex(int(AT.timestamp()))}
NOW = Market(10 * GWEI, (2 * GWEI, 3 * GWEI, 4 * GWEI, 5 * GWEI), int(AT.timestamp()))
STANDING = PendingAttempt(
    fees=Fees(max_fee_wei=30 * GWEI, tip_wei=2 * GWEI),
    waited_blocks=2,
    waited_sec=5.0,
    waited_blocks_next_in_line=2,
    refused_by_price=False,
    urgency=0,
)
BEHIND = {"waited_blocks": 20, "waited_sec": 240.0, "waited_blocks_next_in_line": 0}


def test_market__history__mean_of_the_tips_of_each_percentile_without_zeros() -> None:
    rewards = [["0x0", "0x0", "0x0", "0x0"], ["0x4", "0x8", "0x10", "0x20"], ["0x6", "0xa", "0x12", "0x22"]]
    found = market(LATEST, {"baseFeePerGas": [hex(GWEI), hex(2 * GWEI)], "reward": rewards}, hex(GWEI), 1)
    assert found == Market(2 * GWEI, (5, 9, 17, 33), int(AT.timestamp()))
    assert [found.fees(place) for place in range(len(PERCENTILES))] == [
        Fees(max_fee_wei=4 * GWEI + tip, tip_wei=tip) for tip in (5, 9, 17, 33)
    ]


def test_market__more_blocks_pay_at_a_higher_percentile__its_tip_is_no_lower_for_that() -> None:
    """The mean of 100 alone is above that of 100 and 1."""
    rewards = [["0x64", "0x64", "0x64", "0x64"], ["0x0", "0x1", "0x1", "0x1"]]
    found = market(LATEST, {"baseFeePerGas": [hex(GWEI)], "reward": rewards}, None, 1)
    assert found is not None
    assert found.tips_wei == (100, 100, 100, 100)


def test_market__no_tips_seen__what_the_node_proposes() -> None:
    history = {"baseFeePerGas": [hex(GWEI)], "reward": [["0x0"]]}
    found = market(LATEST, history, hex(3), 1)
    assert found is not None
    assert [found.fees(place) for place in (0, MOST_URGENT)] == [Fees(max_fee_wei=2 * GWEI + 3, tip_wei=3)] * 2


def test_market__node_cannot_tell__fallback_tip_over_the_blocks_base_fee() -> None:
    error = RpcError(-32601, "method not found")
    found = market(LATEST, error, error, 7)
    assert found is not None
    assert [found.fees(place) for place in (0, MOST_URGENT)] == [Fees(max_fee_wei=2 * GWEI + 7, tip_wei=7)] * 2


def test_market__no_base_fee__none() -> None:
    assert market({"timestamp": "0x1"}, RpcError(0, ""), RpcError(0, ""), 7) is None


@pytest.mark.parametrize(
    ("blocks_left", "percentile"),
    [(10_000, 50), (26, 50), (25, 75), (11, 75), (10, 90), (6, 90), (5, 99), (1, 99), (0, 99), (-3, 99)],
)
def test_urgency__blocks_left_to_the_deadline__percentile(blocks_left: int, percentile: int) -> None:
    by = AT + timedelta(seconds=12 * blocks_left)
    tips = dict(zip(PERCENTILES, NOW.tips_wei, strict=True))
    for within_the_slot in (0, 11):
        assert NOW.fees_by(by + timedelta(seconds=within_the_slot)).tip_wei == tips[percentile]


def test_urgency__no_deadline__median() -> None:
    assert NOW.fees_by(None) == NOW.fees(0) == Fees(max_fee_wei=22 * GWEI, tip_wei=2 * GWEI)


def test_urgency__less_time_left__never_less_nor_cheaper() -> None:
    found = [urgency(float(left)) for left in range(600, -60, -1)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (urgency(None), MOST_URGENT)
    assert [NOW.fees(one).max_fee_wei for one in found] == sorted(NOW.fees(one).max_fee_wei for one in found)


@pytest.mark.parametrize(
    ("highest", "now", "expected"),
    [
        (Fees(1000, 8), Fees(1, 1), Fees(1125, 9)),  # an eighth more on both
        (Fees(1001, 1), Fees(1, 1), Fees(1127, 2)),  # rounded up, and never the same
        (Fees(0, 0), Fees(0, 0), Fees(1, 1)),
        (Fees(1000, 8), Fees(5000, 8), Fees(5000, 9)),  # the market where it is higher, by field
    ],
)
def test_raised__both_fields__an_eighth_more_or_the_market(highest: Fees, now: Fees, expected: Fees) -> None:
    assert raised(highest, now) == expected


def test_within__cap__lowers_both_fields_to_what_the_gas_may_cost() -> None:
    assert within(Fees(100, 50), 10, 1000) == Fees(100, 50)
    assert within(Fees(100, 50), 10, 999) == Fees(99, 50)
    assert within(Fees(100, 50), 10, 300) == Fees(30, 30)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"fees": Fees(9 * GWEI, GWEI)}, "below_base_fee"),
        ({"fees": Fees(9 * GWEI, GWEI), "waited_blocks": 1}, None),
        ({"fees": Fees(9 * GWEI, GWEI), "waited_blocks": 0, "waited_sec": 31.0}, "below_base_fee"),
        ({"fees": Fees(9 * GWEI, GWEI), **BEHIND}, "below_base_fee"),
        ({"refused_by_price": True}, None),  # it pays the market by now: the same bytes will do
        ({"refused_by_price": True, "fees": Fees(21 * GWEI, 2 * GWEI)}, "refused_by_price"),
        ({"refused_by_price": True, "fees": Fees(30 * GWEI, GWEI), **BEHIND}, "refused_by_price"),
        ({"fees": Fees(11 * GWEI, 2 * GWEI)}, "tip_below_market"),  # what the base fee leaves is below the tip
        ({"fees": Fees(30 * GWEI, GWEI)}, "tip_below_market"),
        ({"fees": Fees(30 * GWEI, GWEI), **BEHIND}, None),
        ({"fees": Fees(30 * GWEI, GWEI), **BEHIND, "waited_blocks_next_in_line": 1}, None),
        ({"fees": Fees(30 * GWEI, GWEI), **BEHIND, "waited_blocks_next_in_line": 2}, "tip_below_market"),
        ({"waited_blocks": 10, "waited_blocks_next_in_line": 10}, "waited_long"),
        ({**BEHIND}, None),
        ({**BEHIND, "waited_blocks_next_in_line": 9}, None),
        ({"waited_blocks": 0, "waited_sec": 10_000.0, "waited_blocks_next_in_line": 0}, None),  # no block came
        ({"urgency": 1}, "tip_below_market"),  # what was enough without haste
        ({"urgency": 2, "fees": Fees(30 * GWEI, 4 * GWEI)}, None),
        ({"urgency": 2, "fees": Fees(30 * GWEI, 3 * GWEI), "waited_blocks": 1}, None),
    ],
)
def test_why_raise__price_or_age__says_so(change: dict[str, object], why: str | None) -> None:
    assert why_raise(replace(STANDING, **change), NOW) == why  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fees": Fees(9 * GWEI, GWEI)}, "below_base_fee"),
        ({"fees": Fees(30 * GWEI, 4 * GWEI)}, "tip_below_market"),
        ({}, "deadline_near"),  # it pays what others pay, and a block passed it by
        ({"waited_blocks": 0, "waited_blocks_next_in_line": 0}, None),  # one raise a block
        ({**BEHIND}, None),
    ],
)
def test_why_raise__last_blocks_before_the_deadline__each_block(change: dict[str, object], why: str | None) -> None:
    last = replace(STANDING, fees=Fees(40 * GWEI, 6 * GWEI), waited_blocks=1, waited_blocks_next_in_line=1)
    assert why_raise(replace(last, urgency=MOST_URGENT, **change), NOW) == why  # type: ignore[arg-type]
    assert why_raise(replace(last, **change), NOW) is None  # type: ignore[arg-type]
