"""Limits of providers: each is lived with, named where it cannot be, and never asked against in a loop."""

from collections.abc import Iterator
from typing import Any

import pytest

from apps.common.wei import ETHER
from tests.support.lido import Desk
from tests.support.protocols import LIFE, House, live_a_life, make_house
from tests.support.rude_node import BATCH_STYLES, RANGE_TEXTS, RudeNode, rude_node

LIVED_WITH: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"batch of 10, {style}": ("batch_limit", {"most": 10, "style": style}) for style in BATCH_STYLES},
    "batch of 3": ("batch_limit", {"most": 3}),
    "no batch at all": ("batch_limit", {"most": 1, "style": "400"}),
    "answers up to 30 kB, by call": ("response_limit", {"most": 30_000, "style": "items"}),
    "answers up to 30 kB, 413": ("response_limit", {"most": 30_000, "style": "413"}),
    **{f"log range, {text[:20]}": ("log_range", {"most": 5, "text": text}) for text in RANGE_TEXTS},
    "two logs an answer": ("log_count", {"most": 2}),
    "429 once": ("rate", {"times": 1}),
    "429 with Retry-After": ("rate", {"times": 1, "retry_after": 1}),
    "429 in every second answer": ("rate", {"every": 2}),
    "rate limit by call": ("rate", {"times": 2, "style": "items"}),
    "no receipts by block": ("missing", {"methods": ("eth_getBlockReceipts", "eth_feeHistory")}),
    "answers in another order": ("shuffled", {}),
    "answers doubled": ("doubled", {}),
    "answers lost": ("lose_items", {"times": 2}),
    "answers without ids": ("no_ids", {}),
    "head and state of 3 blocks": ("pruned", {"depth": 3}),
}


@pytest.fixture
def node(desk: Desk) -> Iterator[RudeNode]:
    with rude_node(desk.rpc_url) as found:
        yield found


@pytest.fixture
def house(desk: Desk, database_url: str, node: RudeNode) -> House:
    return make_house(desk, database_url, rpc_urls=(node.url,))


@pytest.fixture
def database_url(make_database: Any) -> str:
    return str(make_database("protocols"))


@pytest.mark.parametrize("limit", LIVED_WITH)
def test_provider__with_a_limit__history_state_and_builders_as_without(
    house: House, node: RudeNode, limit: str
) -> None:
    house.history()  # a house that runs already, as a node without old state needs
    name, options = LIVED_WITH[limit]
    node.rude(name, **options)
    live_a_life(house.desk)
    node.requests.clear()
    assert [item["kind"] for item in house.history()] == LIFE
    assert house.get("/v1/lido/state")["operator"]["shares"] == str(house.desk.shares(house.desk.operator))
    house.build("submit", amount_wei=str(ETHER))
    page = house.client.get("/status/protocols")
    assert page.status_code == 200, page.get_json()
    assert len(node.requests) < 250
    if name not in {"pruned", "no_ids"}:
        assert node.used or name in {"missing", "log_range"}


def test_batch_limit__found_once__remembered_and_shown(house: House, node: RudeNode) -> None:
    node.rude("batch_limit", most=10)
    house.desk.oracle.mine(60)
    house.history()
    refusals = node.used.count("batch_limit")
    assert refusals > 0
    house.desk.oracle.mine(60)
    house.history()
    assert node.used.count("batch_limit") == refusals  # what it takes is known now
    (shown,) = house.client.get("/status/protocols").get_json()["checks"]["chain"]["value"]["nodes"]
    assert 1 <= shown["batch_limit"] <= 10
    assert (shown["answers"], shown["block_hashes"], shown["fee_history"]) == (True, True, True)


@pytest.mark.parametrize("style", ["http", "items"])
def test_rate_limit__without_end__503_with_retry_after_and_hardly_a_call(
    house: House, node: RudeNode, style: str
) -> None:
    house.history()
    node.rude("rate", style=style)
    node.requests.clear()
    for _ in range(5):
        answer = house.ask("/v1/lido/history")
        assert (answer.status_code, answer.get_json()["code"]) == (503, "node_rate_limited")
        assert int(answer.headers["Retry-After"]) >= 1
    assert house.refusal("submit", amount_wei="1000") == (503, "node_rate_limited")
    assert house.client.get("/status/protocols").status_code == 503
    assert len(node.requests) < 20


def test_rate_limit__longer_than_anybody_waits__told_at_once_and_not_asked_meanwhile(
    house: House, node: RudeNode
) -> None:
    house.history()
    node.rude("rate", times=1, retry_after=30)
    assert house.ask("/v1/lido/state").get_json()["code"] == "node_rate_limited"
    node.requests.clear()
    answer = house.ask("/v1/lido/state")
    assert answer.get_json()["code"] == "node_rate_limited"
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert node.requests == []


def test_rate_limit__of_one_node__the_other_answers(desk: Desk, database_url: str, node: RudeNode) -> None:
    house = make_house(desk, database_url, rpc_urls=(node.url, desk.rpc_url))
    node.rude("rate")
    live_a_life(desk)
    assert [item["kind"] for item in house.history()] == LIFE


@pytest.mark.parametrize("kind", ["html", "garbage", "empty", "close", "cut", "object", "null"])
def test_node__answers_rubbish__503_then_heals_by_itself(house: House, node: RudeNode, kind: str) -> None:
    live_a_life(house.desk)
    house.get("/v1/lido/state")
    node.rude("broken", kind=kind)
    node.requests.clear()
    for path in ("/v1/lido/history", "/v1/lido/state"):
        answer = house.ask(path)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "chain_unavailable")
    assert len(node.requests) < 20
    assert house.client.get("/status/protocols").status_code == 503
    node.calm()
    assert [item["kind"] for item in house.history()] == LIFE


def test_node__hangs__503_within_the_time_out(desk: Desk, database_url: str, node: RudeNode) -> None:
    house = make_house(desk, database_url, rpc_urls=(node.url,), rpc_timeout_sec=1.0)
    house.get("/v1/lido/state")
    node.rude("broken", kind="hang")
    assert house.ask("/v1/lido/state").status_code == 503
    node.calm()
    assert house.ask("/v1/lido/state").status_code == 200


@pytest.mark.parametrize(
    ("fault", "changes", "words"),
    [
        ("no_tag", {"money_horizon": "finalized"}, "block tag"),
        ("no_block_hashes", {}, "has no such method or block tag"),
        ("pruned", {}, "keeps no state that old"),
    ],
)
def test_node__lacks_what_nothing_replaces__named_in_the_answer_and_503_on_the_status_page(
    desk: Desk, database_url: str, node: RudeNode, fault: str, changes: dict[str, Any], words: str
) -> None:
    live_a_life(desk)
    node.rude(fault)
    house = make_house(desk, database_url, rpc_urls=(node.url,), **changes)
    answer = house.ask("/v1/lido/history")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "node_lacks")
    assert words in answer.get_json()["detail"]
    if fault != "pruned":  # that one lacks the past only: what is next can be read
        assert house.client.get("/status/protocols").status_code == 503
    both = make_house(desk, database_url, rpc_urls=(node.url, desk.rpc_url), **changes)
    assert both.ask("/v1/lido/history").status_code == 200
    assert both.client.get("/status/protocols").status_code == 200


def test_status__of_a_poor_node__says_what_it_cannot_do(house: House, node: RudeNode) -> None:
    house.desk.oracle.mine(200)
    for name, options in (
        ("missing", {"methods": ("eth_feeHistory", "eth_getBlockReceipts")}),
        ("no_tag", {}),
        ("pruned", {"depth": 70}),
        ("batch_limit", {"most": 10, "style": "413"}),
    ):
        node.rude(name, **options)
    page = house.client.get("/status/protocols").get_json()
    (shown,) = page["checks"]["chain"]["value"]["nodes"]
    assert {name: shown[name] for name in ("finalized", "fee_history", "block_receipts", "block_hashes")} == {
        "finalized": False, "fee_history": False, "block_receipts": False, "block_hashes": True,
    }  # fmt: skip
    assert (shown["state_depth"], shown["batch_limit"] <= 10) == (64, True)
