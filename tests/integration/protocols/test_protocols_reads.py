"""State, receipts, withdrawal statuses and APR; and what is said when no node answers."""

from datetime import UTC, datetime

import pytest

from apps.common.wei import ETHER
from tests.support.lido import Desk
from tests.support.protocols import NOBODY, House, make_house

STATE = [
    "chain_id", "block_number", "block_hash", "block_time", "total_pooled_ether_wei", "total_shares", "share_rate",
    "operator", "custody", "stake_limit", "switches",
]  # fmt: skip


def test_state__now__what_the_contracts_say(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 5 * ETHER)
    desk.approve(desk.operator, ETHER)
    state = house.get("/v1/lido/state")
    block = desk.rpc("eth_getBlockByNumber", "latest", False)
    pooled, shares = desk.lido.getTotalPooledEther().call(), desk.lido.getTotalShares().call()
    assert list(state) == STATE
    assert (state["chain_id"], state["block_number"]) == (31337, int(block["number"], 16))
    assert state["block_hash"] == block["hash"]
    assert state["block_time"].endswith("Z")
    assert datetime.fromisoformat(state["block_time"]) == datetime.fromtimestamp(int(block["timestamp"], 16), UTC)
    assert (state["total_pooled_ether_wei"], state["total_shares"]) == (str(pooled), str(shares))
    assert state["share_rate"] == str(pooled * 10**27 // shares)
    assert state["operator"] == {
        "address": desk.operator,
        "shares": str(desk.shares(desk.operator)),
        "steth_wei": str(desk.steth(desk.operator)),
        "eth_wei": str(desk.balance(desk.operator)),
        "allowance_wei": str(ETHER),
    }
    assert state["custody"] == {"address": desk.custody, "eth_wei": str(desk.balance(desk.custody))}
    assert state["stake_limit"]["current_wei"] == str(desk.lido.getCurrentStakeLimit().call())
    assert set(state["switches"].values()) == {False}


def test_state__limit_removed__unlimited_is_null(house: House) -> None:
    house.desk.oracle.set_stake_limit(0, 0)
    assert house.get("/v1/lido/state")["stake_limit"] == {
        "current_wei": None,
        "max_wei": None,
        "growth_per_block_wei": None,
    }


def test_state__switches__each_shown(house: House) -> None:
    oracle = house.desk.oracle
    oracle.pause_staking()
    assert house.get("/v1/lido/state")["stake_limit"]["current_wei"] == "0"
    oracle.pause_queue()
    oracle.set_bunker(active=True)
    oracle.stop()
    switches = house.get("/v1/lido/state")["switches"]
    assert switches == {"staking_paused": True, "queue_paused": True, "stopped": True, "bunker": True}


def test_state__block__as_it_was_then(house: House) -> None:
    desk = house.desk
    before = house.get("/v1/lido/state")
    desk.submit(desk.operator, 5 * ETHER)
    assert house.get("/v1/lido/state", block=before["block_number"]) == before
    assert house.get("/v1/lido/state")["operator"]["shares"] != before["operator"]["shares"]


def test_state__block_that_is_not__named(house: House) -> None:
    assert house.ask("/v1/lido/state", block=house.desk.head() + 1).status_code == 404
    assert house.ask("/v1/lido/state", block=-1).status_code == 422
    assert house.ask("/v1/lido/state", block="latest").status_code == 422
    before_lido = house.ask("/v1/lido/state", block=0)
    assert (before_lido.status_code, before_lido.get_json()["code"]) == (503, "not_configured")
    assert "block 0" in before_lido.get_json()["detail"]


def test_state__address_of_another_contract__not_configured(desk: Desk, database_url: str) -> None:
    house = make_house(desk, database_url, steth_address=desk.deployment.locator)
    answer = house.ask("/v1/lido/state")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "not_configured")


def test_receipt__each_kind__its_logs(house: House) -> None:
    desk = house.desk
    submitted = desk.send(house.build("submit", amount_wei=str(9 * ETHER)))
    found = house.get(f"/v1/lido/receipts/{_hash(submitted)}")
    log = submitted["logs"]
    assert found == {
        "tx_hash": _hash(submitted),
        "block_number": submitted["blockNumber"],
        "transaction_index": 0,
        "success": True,
        "submitted": [
            {"log_index": log[0]["logIndex"], "amount_wei": str(9 * ETHER), "shares": str(desk.shares(desk.operator))}
        ],
        "withdrawal_requests": [],
        "withdrawal_claims": [],
    }
    desk.approve(desk.operator, 3 * ETHER)
    items = [{"reference": "a", "amount_wei": str(wei)} for wei in (ETHER, 2 * ETHER)]
    requested = desk.send(house.build("request-withdrawals", items=items))
    requests = house.get(f"/v1/lido/receipts/{_hash(requested)}")["withdrawal_requests"]
    assert [(item["withdrawal_id"], item["amount_wei"]) for item in requests] == [(1, str(ETHER)), (2, str(2 * ETHER))]
    assert [item["shares"] for item in requests] == [str(desk.status(number)[1]) for number in (1, 2)]
    desk.oracle.finalize()
    before = desk.balance(desk.custody)
    claimed = desk.send(house.build("claim", withdrawal_ids=[2, 1]))
    claims = house.get(f"/v1/lido/receipts/{_hash(claimed)}")["withdrawal_claims"]
    assert [item["withdrawal_id"] for item in claims] == [1, 2]
    assert {item["receiver"] for item in claims} == {desk.custody}
    assert sum(int(item["amount_wei"]) for item in claims) == desk.balance(desk.custody) - before


def test_receipt__strangers_transaction__nothing_of_ours(house: House) -> None:
    tx_hash = house.desk.oracle.stranger_submit(ETHER)
    found = house.get(f"/v1/lido/receipts/{tx_hash}")
    assert (found["success"], found["submitted"], found["withdrawal_requests"]) == (True, [], [])


def test_receipt__reverted__no_success_and_no_logs(house: House) -> None:
    desk = house.desk
    request = {"from": desk.operator, "to": desk.deployment.steth, "data": "0xdeadbeef", "gas": hex(100_000)}
    tx_hash = desk.rpc("eth_sendTransaction", request)
    found = house.get(f"/v1/lido/receipts/{tx_hash}")
    assert (found["success"], found["submitted"]) == (False, [])


def test_receipt__unknown_or_no_hash__404_and_422(house: House) -> None:
    assert house.ask("/v1/lido/receipts/0x" + "ab" * 32).status_code == 404
    assert house.ask("/v1/lido/receipts/0xab").status_code == 422


def test_withdrawal_status__every_stage__shape_and_claimable(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    claimed, final, waiting = desk.request(desk.operator, [ETHER, 2 * ETHER, 3 * ETHER])
    desk.oracle.finalize(final)
    desk.claim(desk.operator, [claimed], desk.custody)
    answer = house.post("/v1/lido/withdrawals/status", {"ids": [waiting, claimed, final]})
    items = {item["withdrawal_id"]: item for item in answer.get_json()["items"]}
    flags = {number: (item["finalized"], item["claimed"]) for number, item in items.items()}
    assert flags == {claimed: (True, True), final: (True, False), waiting: (False, False)}
    payable = desk.queue.getClaimableEther([final], [1]).call()[0]
    requested_at = datetime.fromtimestamp(desk.status(final)[3], UTC)
    assert items[final] == {
        "withdrawal_id": final,
        "owner": desk.operator,
        "amount_wei": str(2 * ETHER),
        "requested_at": requested_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "finalized": True,
        "claimed": False,
        "claimable_wei": str(payable),
    }
    assert (items[claimed]["claimable_wei"], items[waiting]["claimable_wei"]) == ("0", "0")


def test_withdrawal_status__a_thousand_ids_over_many_checkpoints__all_answered(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    ids: list[int] = []
    for _ in range(10):
        ids += desk.request(desk.operator, [1000] * 100)
        desk.oracle.finalize(ids[-50])
    found = house.post("/v1/lido/withdrawals/status", {"ids": ids}).get_json()["items"]
    assert [item["withdrawal_id"] for item in found] == ids
    assert sum(item["finalized"] for item in found) == 951
    assert house.post("/v1/lido/withdrawals/status", {"ids": [*ids, 1]}).status_code == 422


def test_withdrawal_status__unknown_ids__named(house: House) -> None:
    answer = house.post("/v1/lido/withdrawals/status", {"ids": [1, 2]})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "withdrawal_unknown")
    assert answer.get_json()["errors"] == {"withdrawal_ids": ["1", "2"]}


def test_apr__no_rebase_yet__null(house: House) -> None:
    assert house.get("/v1/lido/apr") == {"last": None, "seven_day": None}


def test_apr__ten_days__last_report_and_the_last_seven(house: House) -> None:
    desk = house.desk
    for day in range(10):
        desk.rpc("evm_increaseTime", 86_400)
        desk.oracle.rebase((10 + day) * ETHER)
    rebases = house.get("/v1/lido/rebases")["items"]
    found = house.get("/v1/lido/apr")
    assert found["last"]["rebases"] == 1
    assert found["seven_day"]["rebases"] == 7
    assert found["seven_day"]["elapsed_sec"] == sum(item["time_elapsed_sec"] for item in rebases[-7:])
    assert found["last"]["block_number"] == rebases[-1]["block_number"]
    last = rebases[-1]
    pre = int(last["pre_total_ether_wei"]) * 10**27 // int(last["pre_total_shares"])
    post = int(last["post_total_ether_wei"]) * 10**27 // int(last["post_total_shares"])
    yearly = 31_536_000 * (post - pre) * 10**8 // (pre * last["time_elapsed_sec"])
    assert found["last"]["apr"] == f"{yearly // 10**8}.{yearly % 10**8:08d}"


@pytest.mark.parametrize("path", ["/v1/lido/state", "/v1/lido/history", "/v1/lido/apr", "/v1/lido/rebases"])
def test_node_down__reads__503_to_try_again(desk: Desk, database_url: str, path: str) -> None:
    answer = make_house(desk, database_url, rpc_urls=(NOBODY, NOBODY)).ask(path)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "chain_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_node_down__builder_and_reconciliation__503_and_nothing_stored(desk: Desk, database_url: str) -> None:
    house = make_house(desk, database_url, rpc_urls=(NOBODY,))
    assert house.refusal("submit", amount_wei="1") == (503, "chain_unavailable")
    assert house.post("/v1/reconciliations", {"message_id": "r:1"}).status_code == 503
    assert house.get("/v1/reconciliations") == {"items": [], "next": None}


def test_first_node_down__second_answers__as_if_nothing_were(desk: Desk, database_url: str) -> None:
    house = make_house(desk, database_url, rpc_urls=(NOBODY, desk.rpc_url))
    desk.send(house.build("submit", amount_wei=str(ETHER)))
    assert [item["kind"] for item in house.history()] == ["submit"]
    assert house.client.get("/status/protocols").status_code == 200


def test_status__chain_there_or_not__200_or_503_by_check(desk: Desk, database_url: str) -> None:
    good = make_house(desk, database_url).client.get("/status/protocols").get_json()
    assert good["checks"]["chain"]["value"]["chain_id"] == 31337
    for broken in ({"rpc_urls": (NOBODY,)}, {"steth_address": desk.user}, {"steth_address": None}):
        answer = make_house(desk, database_url, **broken).client.get("/status/protocols")
        checks = answer.get_json()["checks"]
        assert answer.status_code == 503
        assert (checks["chain"]["ok"], checks["database"]["ok"]) == (False, True)


def _hash(receipt: dict[str, bytes]) -> str:
    return "0x" + bytes(receipt["transactionHash"]).hex()
