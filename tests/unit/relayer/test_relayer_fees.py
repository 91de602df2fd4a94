"""Fees from what nodes answer, and when and by how much a price rises."""

from dataclasses import replace

import pytest

from relayer.fees import Fees, Market, Standing, market, raised, why_raise, within
from relayer.rpc import RpcError

GWEI = 10**9
NOW = Market(Fees(max_fee_wei=22 * GWEI, tip_wei=2 * GWEI), base_fee_wei=10 * GWEI)
STANDING = Standing(
    fees=Fees(max_fee_wei=30 * GWEI, tip_wei=2 * GWEI),
    waited_blocks=2,
    waited_sec=5.0,
    refused_by_price=False,
    next_in_line=True,
)


def test_market__history__mean_of_median_tips_without_zeros() -> None:
    history = {"baseFeePerGas": [hex(GWEI), hex(2 * GWEI)], "reward": [["0x0"], ["0x4"], ["0x6"]]}
    found = market(hex(GWEI), history, hex(GWEI), 1)
    assert found == Market(Fees(max_fee_wei=4 * GWEI + 5, tip_wei=5), base_fee_wei=2 * GWEI)


def test_market__no_tips_seen__what_the_node_proposes() -> None:
    history = {"baseFeePerGas": [hex(GWEI)], "reward": [["0x0"]]}
    found = market(hex(GWEI), history, hex(3), 1)
    assert found is not None
    assert found.fees == Fees(max_fee_wei=2 * GWEI + 3, tip_wei=3)


def test_market__node_cannot_tell__fallback_tip_over_the_blocks_base_fee() -> None:
    error = RpcError(-32601, "method not found")
    found = market(hex(GWEI), error, error, 7)
    assert found is not None
    assert found.fees == Fees(max_fee_wei=2 * GWEI + 7, tip_wei=7)


def test_market__no_base_fee__none() -> None:
    assert market(None, RpcError(0, ""), RpcError(0, ""), 7) is None


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
        ({"fees": Fees(9 * GWEI, GWEI), "next_in_line": False}, "below_base_fee"),
        ({"refused_by_price": True}, None),  # it pays the market by now: the same bytes will do
        ({"refused_by_price": True, "fees": Fees(21 * GWEI, 2 * GWEI)}, "refused_by_price"),
        ({"refused_by_price": True, "fees": Fees(30 * GWEI, GWEI), "next_in_line": False}, "refused_by_price"),
        ({"fees": Fees(11 * GWEI, 2 * GWEI)}, "tip_below_market"),  # what the base fee leaves is below the tip
        ({"fees": Fees(30 * GWEI, GWEI)}, "tip_below_market"),
        ({"fees": Fees(30 * GWEI, GWEI), "next_in_line": False}, None),
        ({"waited_blocks": 10}, "waited_long"),
        ({"waited_blocks": 10, "next_in_line": False}, None),
        ({"waited_blocks": 0, "waited_sec": 10_000.0}, None),  # no block came: nobody else got in either
    ],
)
def test_why_raise__price_or_age__says_so(change: dict[str, object], why: str | None) -> None:
    assert why_raise(replace(STANDING, **change), NOW) == why  # type: ignore[arg-type]
