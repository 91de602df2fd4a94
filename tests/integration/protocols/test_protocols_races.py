"""What changes between a look and the next, and what nodes refuse: by the same names, and never half a picture."""

from collections.abc import Iterator
from typing import Any

import pytest

from apps.common.wei import ETHER
from tests.support.lido import Desk
from tests.support.protocols import House, make_house
from tests.support.rpc import Tap, tapped


@pytest.fixture
def tap(desk: Desk) -> Iterator[Tap]:
    with tapped(desk.rpc_url) as found:
        yield found


@pytest.fixture
def house(desk: Desk, database_url: str, tap: Tap) -> House:
    """Its line to the node is tapped; the first look at the settings has been had."""
    found = make_house(desk, database_url, rpc_urls=(tap.url,))
    found.get("/v1/lido/state")
    tap.requests.clear()
    return found


def test_state__one_block__two_requests_however_much_is_read(house: House, tap: Tap) -> None:
    house.get("/v1/lido/state")
    assert [len(methods) for methods in tap.requests] == [1, 11]


def test_state__block_leaves_the_chain_in_between__503_not_another_blocks_values(house: House, tap: Tap) -> None:
    desk = house.desk
    snapshot = desk.rpc("evm_snapshot")
    desk.submit(desk.operator, ETHER)

    def reorganize() -> None:
        desk.rpc("evm_revert", snapshot)
        desk.submit(desk.operator, 2 * ETHER)

    tap.before["eth_call"] = reorganize
    answer = house.ask("/v1/lido/state")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "chain_unavailable")
    assert house.get("/v1/lido/state")["operator"]["shares"] == str(desk.shares(desk.operator))


@pytest.mark.parametrize(
    ("switch", "code"),
    [
        ("pause_staking", "staking_paused"),
        ("stop", "staking_paused"),  # what the protocol itself calls it
        ("limit", "stake_limit_exceeded"),
    ],
)
def test_submit__switch_thrown_after_the_look__refused_by_its_name(
    house: House, tap: Tap, switch: str, code: str
) -> None:
    oracle = house.desk.oracle
    action = (lambda: oracle.set_stake_limit(1, 0)) if switch == "limit" else getattr(oracle, switch)
    tap.before["eth_estimateGas"] = action
    assert house.refusal("submit", amount_wei=str(ETHER)) == (409, code)


@pytest.mark.parametrize(
    ("switch", "code"),
    [("pause_queue", "queue_paused"), ("stop", "protocol_stopped"), ("allowance", "allowance_insufficient")],
)
def test_request__switch_thrown_after_the_look__refused_by_its_name(
    house: House, tap: Tap, switch: str, code: str
) -> None:
    desk = house.desk
    desk.submit(desk.operator, 2 * ETHER)
    desk.approve(desk.operator, ETHER)
    action = (lambda: desk.approve(desk.operator, 1)) if switch == "allowance" else getattr(desk.oracle, switch)
    tap.before["eth_estimateGas"] = action
    items = [{"reference": "a", "amount_wei": str(ETHER)}]
    assert house.refusal("request-withdrawals", items=items) == (409, code)


@pytest.mark.parametrize("change", ["claimed", "moved"])
def test_claim__one_id_gone_after_the_look__refused_by_what_it_is(house: House, tap: Tap, change: str) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    first, second = desk.request(desk.operator, [ETHER, ETHER])
    desk.oracle.finalize()
    actions: dict[str, Any] = {
        "claimed": lambda: desk.claim(desk.operator, [second], desk.custody),
        "moved": lambda: desk.do(desk.queue.transferFrom(desk.operator, desk.user, second), desk.operator),
    }
    tap.before["eth_estimateGas"] = actions[change]
    code = {"claimed": "withdrawal_claimed", "moved": "withdrawal_not_owned"}[change]
    assert house.refusal("claim", withdrawal_ids=[first, second]) == (409, code)
    desk.send(house.build("claim", withdrawal_ids=[first]))


@pytest.mark.parametrize("widest", [1, 3, 1000])
def test_history__node_limits_its_ranges__read_in_smaller_ones(house: House, tap: Tap, widest: int) -> None:
    desk = house.desk
    for _ in range(5):
        desk.submit(desk.operator, ETHER)
        desk.oracle.mine(2)

    def refuse(call: dict[str, Any]) -> str | None:
        if call["method"] != "eth_getLogs":
            return None
        asked = call["params"][0]
        width = int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) + 1
        return f"block range too large: {width}" if width > widest else None

    tap.refuse = refuse
    assert [item["kind"] for item in house.history()] == ["submit"] * 5


def test_history__node_refuses_every_range__503_after_a_few_tries(house: House, tap: Tap) -> None:
    house.desk.oracle.mine(40)
    tap.refuse = lambda call: "no logs here" if call["method"] == "eth_getLogs" else None
    assert house.ask("/v1/lido/history").status_code == 503
    assert sum("eth_getLogs" in methods for methods in tap.requests) <= 8


def test_withdrawal_status__a_thousand_open_ids__four_requests(house: House, tap: Tap) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    ids: list[int] = []
    for _ in range(10):
        ids += desk.request(desk.operator, [1000] * 100)
    desk.oracle.finalize(ids[500])
    tap.requests.clear()
    house.post("/v1/lido/withdrawals/status", {"ids": ids})
    assert [len(methods) for methods in tap.requests] == [1, 3, 1, 1]
