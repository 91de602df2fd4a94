"""Fees from what nodes answer."""

from relayer.fees import Fees, choose_fees
from relayer.rpc import RpcError

GWEI = 10**9


def test_fees__history__mean_of_median_tips_without_zeros() -> None:
    history = {"baseFeePerGas": [hex(GWEI), hex(2 * GWEI)], "reward": [["0x0"], ["0x4"], ["0x6"]]}
    assert choose_fees(hex(GWEI), history, hex(GWEI), 1) == Fees(max_fee_wei=4 * GWEI + 5, tip_wei=5)


def test_fees__no_tips_seen__what_the_node_proposes() -> None:
    history = {"baseFeePerGas": [hex(GWEI)], "reward": [["0x0"]]}
    assert choose_fees(hex(GWEI), history, hex(3), 1) == Fees(max_fee_wei=2 * GWEI + 3, tip_wei=3)


def test_fees__node_cannot_tell__fallback_tip_over_the_blocks_base_fee() -> None:
    error = RpcError(-32601, "method not found")
    assert choose_fees(hex(GWEI), error, error, 7) == Fees(max_fee_wei=2 * GWEI + 7, tip_wei=7)


def test_fees__no_base_fee__none() -> None:
    assert choose_fees(None, RpcError(0, ""), RpcError(0, ""), 7) is None
