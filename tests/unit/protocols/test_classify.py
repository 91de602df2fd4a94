"""Logs of one operation are found together whatever order a version of the protocol emits them in."""

from typing import Any

import pytest

from apps.ethereum.logs import topic_of
from apps.protocols import classify
from apps.protocols.items import Item

ME = topic_of("0x" + "11" * 20)
QUEUE = topic_of("0x" + "22" * 20)
SOMEBODY = topic_of("0x" + "33" * 20)


def log(index: int, topics: list[str], *values: int, tx: str = "0xaa", block: int = 7) -> dict[str, Any]:
    return {
        "blockNumber": hex(block),
        "logIndex": hex(index),
        "blockHash": "0xb7",
        "transactionHash": tx,
        "topics": ["0xtopic", *topics],
        "data": "0x" + "".join(f"{value:064x}" for value in values),
    }


def nft(number: int) -> str:
    return f"0x{number:064x}"


def kinds(items: list[Item]) -> list[tuple[Any, ...]]:
    return [(item.log_index, item.kind, item.amount_wei, item.withdrawal_id) for item in items]


def flows(**logs: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    given = {name: logs.get(name, []) for name in ("shares", "transfers", "submitted", "requested")}
    return kinds(classify.flows(**given, me=ME, queue=QUEUE))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (9, 4, 1)])
def test_submit__its_three_logs_in_any_order__one_submit(order: tuple[int, int, int]) -> None:
    submitted, transfer, shares = order
    rows = flows(
        shares=[log(shares, [classify.ZERO_TOPIC, ME], 90)],
        transfers=[log(transfer, [classify.ZERO_TOPIC, ME], 99)],
        submitted=[log(submitted, [ME], 100, 0)],
    )
    assert rows == [(shares, "submit", 100, None)]


@pytest.mark.parametrize("between", [0, 1, 3])
def test_request__other_logs_in_between__still_its_request(between: int) -> None:
    rows = flows(
        shares=[log(1, [ME, QUEUE], 90), log(5 + between, [ME, QUEUE], 45)],
        transfers=[log(0, [ME, QUEUE], 100), log(4 + between, [ME, QUEUE], 50)],
        requested=[log(2 + between, [nft(8), ME, ME], 100, 90), log(7 + 2 * between, [nft(9), ME, ME], 50, 45)],
    )
    assert rows == [(1, "request", 100, 8), (5 + between, "request", 50, 9)]


def test_request__all_transfers_first__each_with_its_own_shares() -> None:
    rows = flows(
        shares=[log(0, [ME, QUEUE], 90), log(1, [ME, QUEUE], 45)],
        requested=[log(2, [nft(8), ME, ME], 100, 90), log(3, [nft(9), ME, ME], 50, 45)],
    )
    assert rows == [(0, "request", 100, 8), (1, "request", 50, 9)]


def test_shares_to_the_queue__beside_a_request_in_one_transaction__foreign_out() -> None:
    rows = flows(
        shares=[log(1, [ME, QUEUE], 30), log(3, [ME, QUEUE], 90)],
        transfers=[log(0, [ME, QUEUE], 33), log(2, [ME, QUEUE], 100)],
        requested=[log(4, [nft(8), ME, ME], 100, 90)],
    )
    assert rows == [(1, "foreign_out", 33, None), (3, "request", 100, 8)]


def test_logs_of_another_transaction__never_mixed_in() -> None:
    rows = flows(
        shares=[log(0, [ME, QUEUE], 90, tx="0xaa"), log(2, [classify.ZERO_TOPIC, ME], 5, tx="0xcc")],
        requested=[log(1, [nft(8), ME, ME], 100, 90, tx="0xbb")],
        submitted=[log(3, [ME], 6, 0, tx="0xdd")],
    )
    assert [row[1] for row in rows] == ["foreign_out", "foreign_in"]


def test_transfers_of_strangers__valued_by_their_own_transfer_log() -> None:
    rows = flows(
        shares=[log(1, [SOMEBODY, ME], 9), log(3, [SOMEBODY, ME], 18), log(5, [ME, SOMEBODY], 27)],
        transfers=[log(0, [SOMEBODY, ME], 10), log(2, [SOMEBODY, ME], 20), log(4, [ME, SOMEBODY], 30)],
    )
    assert rows == [(1, "foreign_in", 10, None), (3, "foreign_in", 20, None), (5, "foreign_out", 30, None)]


def test_transfer_to_itself__answers_both_queries__no_row() -> None:
    same = log(1, [ME, ME], 9)
    assert flows(shares=[same, same]) == []


def test_rebase__reward__difference_of_two_floors_and_signed() -> None:
    pre, post = (10**18 + 7, 11 * 10**17), (10**18 + 9, 10**18)
    item = classify.rebase(log(0, [nft(1)], 86_400, *pre, *post, 2), 123_456_789)
    assert item.reward_wei == 123_456_789 * post[1] // post[0] - 123_456_789 * pre[1] // pre[0] < 0
    assert item.rebase is not None
    assert item.rebase.operator_shares == 123_456_789


def test_request__of_a_strangers_in_our_name_beside_a_move_of_nothing__is_not_ours() -> None:
    """A contract of a stranger's may do both in one transaction: the pair looks like a request of the operator's."""
    rows = flows(
        shares=[log(1, [ME, QUEUE], 0)],
        transfers=[log(0, [ME, QUEUE], 0)],
        requested=[log(5, [nft(8), SOMEBODY, ME], 100, 90)],
    )
    assert rows == []


def test_request__of_ours_after_a_move_of_nothing__takes_its_own_shares() -> None:
    rows = flows(
        shares=[log(1, [ME, QUEUE], 0), log(3, [ME, QUEUE], 90)],
        transfers=[log(0, [ME, QUEUE], 0), log(2, [ME, QUEUE], 100)],
        requested=[log(5, [nft(8), ME, ME], 100, 90)],
    )
    assert rows == [(3, "request", 100, 8)]


def test_gift__after_a_move_of_nothing_between_the_same_two__has_its_own_value() -> None:
    rows = flows(
        shares=[log(1, [SOMEBODY, ME], 0), log(3, [SOMEBODY, ME], 45)],
        transfers=[log(0, [SOMEBODY, ME], 1), log(2, [SOMEBODY, ME], 50)],
    )
    assert rows == [(3, "foreign_in", 50, None)]


def test_submit__that_mints_no_share__is_a_submit() -> None:
    rows = flows(
        shares=[log(2, [classify.ZERO_TOPIC, ME], 0)],
        transfers=[log(1, [classify.ZERO_TOPIC, ME], 0)],
        submitted=[log(0, [ME], 1, 0)],
    )
    assert rows == [(2, "submit", 1, None)]
