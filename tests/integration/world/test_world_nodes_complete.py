"""A node that leaves something out, lags, or stands on another fork: nothing of it is taken for the whole."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from apps.common.wei import ETHER
from apps.ethereum.contracts import LIDO, QUEUE
from apps.ethereum.logs import topic_of
from tests.support.lido import Desk
from tests.support.protocols import LIFE, House, live_a_life, make_house
from tests.support.rude_node import RudeNode, rude_node

EVERYWHERE = ("eth_getLogs", "eth_getBlockReceipts", "eth_getTransactionReceipt")
EVENTS = ("TransferShares", "TokenRebased", "Submitted", "WithdrawalRequested", "WithdrawalClaimed")


@pytest.fixture
def node(desk: Desk) -> Iterator[RudeNode]:
    with rude_node(desk.rpc_url) as found:
        yield found


@pytest.fixture
def database_url(make_database: Any) -> str:
    return str(make_database("protocols"))


@pytest.fixture
def house(desk: Desk, database_url: str, node: RudeNode) -> House:
    return make_house(desk, database_url, rpc_urls=(node.url,))


@pytest.fixture
def truth(desk: Desk, make_database: Any) -> House:
    """What a house reads whose node leaves nothing out."""
    return make_house(desk, make_database("protocols"))


def of_ours(desk: Desk, event: str) -> Any:
    me, topic = topic_of(desk.operator), {**LIDO.events, **QUEUE.events}[event].topic
    return lambda log: log["topics"][0] == topic and (event == "TokenRebased" or me in log["topics"])


def codes(house: House, times: int) -> list[str]:
    """What the history says at so many later blocks."""
    said = []
    for _ in range(times):
        house.desk.oracle.mine()
        answer = house.ask("/v1/lido/history")
        said.append("" if answer.status_code == 200 else f"{answer.status_code} {answer.get_json()['code']}")
    return said


def sql(house: House, statement: str) -> Any:
    engine = create_engine(house.database_url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection:
        found = connection.execute(text(statement))
        rows = [tuple(row) for row in found] if found.returns_rows else []
    engine.dispose()
    return rows


@pytest.mark.parametrize("event", EVENTS)
def test_log__missing_in_every_log_query__read_from_its_receipt(
    house: House, truth: House, node: RudeNode, event: str
) -> None:
    node.rude("drop_log", which=of_ours(house.desk, event))
    live_a_life(house.desk)
    assert house.history() == truth.history()
    assert node.used.count("drop_log") > 0


def test_logs__empty_for_every_range__read_from_receipts(house: House, truth: House, node: RudeNode) -> None:
    node.rude("no_logs")
    live_a_life(house.desk)
    assert house.history() == truth.history()


def test_logs__two_claims_in_one_transaction_one_missing__both_credited(house: House, node: RudeNode) -> None:
    """Claims move no shares: no sum would show it."""
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    ids = desk.request(desk.operator, [ETHER, 2 * ETHER])
    desk.oracle.finalize()
    house.history()
    node.rude("drop_log", times=1, which=of_ours(desk, "WithdrawalClaimed"))
    desk.claim(desk.operator, ids, desk.custody)
    assert [item["kind"] for item in house.history()].count("claim") == 2
    assert node.used == ["drop_log"]


def test_logs__equal_shares_in_and_out_missing_together__both_read(house: House, truth: House, node: RudeNode) -> None:
    """The sum of the flows is right without them."""
    desk = house.desk
    house.history()
    desk.oracle.stranger_transfer(desk.operator, ETHER)
    desk.do(desk.lido.transferShares(desk.user, desk.shares(desk.operator)), desk.operator)
    node.rude("no_logs")
    assert [item["kind"] for item in house.history()] == ["foreign_in", "foreign_out"]
    assert house.history() == truth.history()


@pytest.mark.parametrize("event", EVENTS)
def test_log__missing_in_receipts_too__nothing_of_its_block_stored_then_named_then_healed(
    house: House, truth: House, node: RudeNode, event: str
) -> None:
    """Seen once it is a doubt: the history stands still. Seen at later blocks it is said; once the node shows the log, the
    history goes on by itself."""
    house.history()
    node.rude("drop_log", which=of_ours(house.desk, event), methods=EVERYWHERE)
    live_a_life(house.desk)
    assert codes(house, 4) == ["", "", "503 history_incomplete", "503 history_incomplete"]
    page = house.client.get("/status/protocols")
    assert (page.status_code, page.get_json()["checks"]["history"]["error"]) == (503, "HistoryIncomplete")
    stored = sql(house, "SELECT block_number, log_index FROM share_events ORDER BY 1, 2")
    whole = truth.history()
    assert stored == [(item["block_number"], item["log_index"]) for item in whole[: len(stored)]]
    assert len(stored) < len(whole)  # up to the block that is in doubt, and nothing of it
    node.calm()
    assert house.history() == whole
    assert house.client.get("/status/protocols").status_code == 200


def test_log__missing_once_in_receipts__never_told(house: House, truth: House, node: RudeNode) -> None:
    house.history()
    live_a_life(house.desk)
    node.rude("drop_log", times=1, which=of_ours(house.desk, "WithdrawalClaimed"), methods=EVERYWHERE[1:])
    assert house.history() == truth.history()


@pytest.mark.parametrize("fault", ["drop_log", "no_logs", "lag"])
def test_log__missing_at_the_first_node__second_is_asked(
    desk: Desk, database_url: str, truth: House, node: RudeNode, fault: str
) -> None:
    house = make_house(desk, database_url, rpc_urls=(node.url, desk.rpc_url))
    house.history()
    options: dict[str, Any] = {"methods": EVERYWHERE} if fault == "drop_log" else {}
    node.rude(fault, **options)
    live_a_life(desk)
    desk.oracle.mine(2)
    assert codes(house, 3) == [""] * 3
    node.calm()
    assert house.history() == truth.history()


def test_empty_blooms__prove_nothing__receipts_are_read(house: House, truth: House, node: RudeNode) -> None:
    """Some chains leave the bloom out of their headers."""
    node.rude("instead", answer=lambda item: _without_bloom(house.desk, item))
    node.rude("no_logs")
    live_a_life(house.desk)
    assert house.history() == truth.history()


def _without_bloom(desk: Desk, item: dict[str, Any]) -> dict[str, Any] | None:
    if item["method"] != "eth_getBlockByNumber":
        return None
    block = desk.rpc(item["method"], *item["params"])
    return {"result": block and {**block, "logsBloom": "0x" + "00" * 256}}


@pytest.mark.parametrize("every", [2, 3])
def test_two_nodes_behind_one_address__one_lags__never_half_a_history(
    house: House, truth: House, node: RudeNode, every: int
) -> None:
    node.rude("lag", every=every, blocks=3)
    for _ in range(2):
        live_a_life(house.desk)
        shown = house.ask("/v1/lido/history")
        assert shown.status_code in {200, 503}
        assert (
            shown.status_code == 503 or truth.history()[: len(shown.get_json()["items"])] == shown.get_json()["items"]
        )
    for _ in range(6):
        house.desk.oracle.mine()
        assert house.ask("/v1/lido/history").status_code in {200, 503}
    node.calm()
    assert house.history() == truth.history()
    assert len(house.history()) == 2 * len(LIFE)


def test_node__falls_behind_what_was_read__the_history_waits(house: House, node: RudeNode) -> None:
    live_a_life(house.desk)
    before = house.get("/v1/lido/history")
    node.rude("lag", blocks=10)
    for _ in range(3):
        assert house.get("/v1/lido/history") == before
        house.desk.oracle.mine()
    house.desk.submit(house.desk.operator, ETHER)
    node.calm()
    assert [item["kind"] for item in house.history()] == [*LIFE, "submit"]


def test_state__of_a_node_that_fell_behind__not_taken_for_the_present(house: House, node: RudeNode) -> None:
    """A stake limit, a switch or a balance of the past would let a builder build what the chain refuses."""
    desk = house.desk
    desk.submit(desk.operator, ETHER)
    head = house.get("/v1/lido/state")["block_number"]
    node.rude("lag", blocks=2)
    answer = house.ask("/v1/lido/state")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "chain_unavailable")
    assert f"behind block {head}" in answer.get_json()["detail"]
    assert house.refusal("submit", amount_wei="1000") == (503, "chain_unavailable")
    node.rude("lag", blocks=2, every=2)  # the other node behind the same address knows it
    for _ in range(4):
        assert house.get("/v1/lido/state")["block_number"] == head


def test_receipt__null_of_one_node__another_is_asked(desk: Desk, database_url: str, node: RudeNode) -> None:
    house = make_house(desk, database_url, rpc_urls=(node.url, desk.rpc_url))
    tx_hash = "0x" + bytes(desk.submit(desk.operator, ETHER)["transactionHash"]).hex()
    node.rude("lag", blocks=2)
    assert house.get(f"/v1/lido/receipts/{tx_hash}")["success"] is True
    alone = make_house(desk, database_url, rpc_urls=(node.url,))
    assert alone.ask(f"/v1/lido/receipts/{tx_hash}").status_code == 404
    node.rude("lag", blocks=2, every=2)
    assert alone.get(f"/v1/lido/receipts/{tx_hash}")["success"] is True


def forked(desk: Desk, number: int) -> Any:
    """A node that has another block in this place."""

    def answer(item: dict[str, Any]) -> dict[str, Any] | None:
        if item["method"] != "eth_getBlockByNumber" or item["params"][0] != hex(number):
            return None
        return {"result": {**desk.rpc(item["method"], *item["params"]), "hash": "0x" + "ab" * 32}}

    return answer


def test_other_hash__said_for_a_moment__nothing_is_stopped(house: House, node: RudeNode) -> None:
    desk = house.desk
    live_a_life(desk)
    at = house.get("/v1/lido/history")["horizon"]
    for number in (at["block_number"], at["block_number"] - 1):
        node.rude("instead", answer=forked(desk, number))
        for _ in range(4):  # the same look again is not a second one
            answer = house.ask("/v1/lido/state", block=number)
            assert (answer.status_code, answer.get_json()["code"]) == (503, "chain_unavailable")
            assert house.ask("/v1/lido/history").status_code in {200, 503}
        node.calm()
        assert house.get("/v1/lido/state", block=number)["block_number"] == number
        assert [item["kind"] for item in house.history()] == LIFE


def test_other_hash__of_one_of_two_nodes__nothing_is_stopped(desk: Desk, database_url: str, node: RudeNode) -> None:
    house = make_house(desk, database_url, rpc_urls=(node.url, desk.rpc_url))
    live_a_life(desk)
    at = house.get("/v1/lido/history")["horizon"]
    node.rude("instead", answer=forked(desk, at["block_number"]))
    assert codes(house, 5) == [""] * 5
    assert house.get("/v1/lido/state", block=at["block_number"])["block_hash"] == at["block_hash"]


def test_other_hash__at_three_later_blocks__chain_reorganized_and_a_rescan_is_the_way_out(
    house: House, truth: House
) -> None:
    desk = house.desk
    desk.submit(desk.operator, ETHER)
    snapshot = desk.rpc("evm_snapshot")
    desk.submit(desk.operator, 2 * ETHER)
    gone = house.history()[-1]
    desk.rpc("evm_revert", snapshot)
    desk.submit(desk.operator, 3 * ETHER)
    assert codes(house, 4) == ["503 chain_unavailable"] * 2 + ["409 chain_reorganized"] * 2
    assert house.get("/v1/lido/state", block=gone["block_number"])["block_hash"] != gone["block_hash"]
    done = rescan(house, "rescan:1", gone["block_number"])
    assert [item["amount_wei"] for item in done["added"]] == [str(3 * ETHER)]
    assert done["removed"] == [gone]
    assert house.history() == truth.history()
    assert house.client.get("/status/protocols").status_code == 200


def rescan(house: House, message_id: str, from_block: int, **more: Any) -> dict[str, Any]:
    answer = post_rescan(house, message_id, from_block, **more)
    assert answer.status_code == 201, answer.get_json()
    done: dict[str, Any] = answer.get_json()
    return done


def post_rescan(house: House, message_id: str, from_block: int, **more: Any) -> Any:
    body = {"message_id": message_id, "from_block": from_block, "reason": "a claim is missing", "requested_by": "ada"}
    return house.post("/v1/lido/rescan", {**body, **more})


@pytest.mark.parametrize("kind", ["claim", "submit", "rebase", "foreign_out"])
def test_rescan__what_an_older_release_left_out__added_and_told(house: House, truth: House, kind: str) -> None:
    live_a_life(house.desk)
    lost = [item for item in house.history() if item["kind"] == kind]
    sql(house, f"DELETE FROM share_events WHERE kind = '{kind}'")
    sql(house, "UPDATE scan_cursor SET proved_block = NULL, proved_shares = NULL")  # as an older release leaves it
    done = rescan(house, "rescan:1", 1)
    assert (done["added"], done["removed"]) == (lost, [])
    assert (done["reason"], done["requested_by"]) == ("a claim is missing", "ada")
    again = post_rescan(house, "rescan:1", 1)
    assert (again.status_code, again.headers["Idempotent-Replay"], again.get_json()) == (200, "true", done)
    assert post_rescan(house, "rescan:1", 2).get_json()["code"] == "message_id_reused"
    assert house.history() == truth.history()
    house.desk.submit(house.desk.operator, ETHER)
    assert house.history() == truth.history()
    assert house.get("/v1/lido/rescans")["items"] == [done]


def test_rescan__what_is_not_on_the_chain__removed_and_told(house: House, truth: House) -> None:
    live_a_life(house.desk)
    items = house.history()
    sql(house, "UPDATE share_events SET log_index = log_index + 500, amount_wei = 7 WHERE kind = 'claim'")
    sql(house, "UPDATE share_events SET shares = shares + 1 WHERE kind = 'submit'")
    done = rescan(house, "rescan:1", items[0]["block_number"])
    assert sorted(item["kind"] for item in done["added"]) == ["claim", "submit"]
    assert sorted(item["kind"] for item in done["removed"]) == ["claim", "submit"]
    assert [item["amount_wei"] for item in done["removed"] if item["kind"] == "claim"] == ["7"]
    assert house.history() == truth.history()


def test_rescan__of_a_part__touches_nothing_else(house: House) -> None:
    live_a_life(house.desk)
    items = house.history()
    sql(house, "DELETE FROM share_events WHERE kind = 'rebase'")
    first, second, third = [item for item in items if item["kind"] == "rebase"]
    place = second["block_number"]
    assert rescan(house, "rescan:1", place, to_block=place)["added"] == [second]
    assert [item for item in house.history() if item["kind"] == "rebase"] == [second]
    assert rescan(house, "rescan:2", 1)["added"] == [first, third]
    assert house.history() == items


def test_rescan__unproved__refused_and_nothing_is_changed(house: House, node: RudeNode) -> None:
    live_a_life(house.desk)
    house.history()
    sql(house, "DELETE FROM share_events WHERE kind = 'rebase'")
    before = sql(house, "SELECT * FROM share_events ORDER BY 1, 2")
    node.rude("drop_log", which=of_ours(house.desk, "WithdrawalClaimed"), methods=EVERYWHERE)
    refused = post_rescan(house, "rescan:1", 1)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "history_incomplete")
    node.rude("lag", blocks=5)
    assert post_rescan(house, "rescan:1", 1).status_code == 503
    assert sql(house, "SELECT * FROM share_events ORDER BY 1, 2") == before
    assert house.get("/v1/lido/rescans")["items"] == []
    node.calm()
    assert len(rescan(house, "rescan:1", 1)["added"]) == 3  # the id was not used up


def test_rescan__of_what_was_never_read__invalid_input(house: House) -> None:
    assert post_rescan(house, "rescan:1", 5).get_json()["errors"]["from_block"]
    house.desk.oracle.mine(5)
    head = house.get("/v1/lido/history")["horizon"]["block_number"]
    for from_block, more in ((0, {}), (head + 1, {}), (3, {"to_block": 2}), (3, {"to_block": head + 1})):
        answer = post_rescan(house, "rescan:1", from_block, **more)
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")
    assert post_rescan(house, "rescan:1", 1, reason="").status_code == 422


def test_rescans__written_down__for_ever(house: House) -> None:
    live_a_life(house.desk)
    house.history()
    rescan(house, "rescan:1", 1)
    for statement in ("UPDATE rescans SET reason = ''", "DELETE FROM rescans", "TRUNCATE rescans"):
        with pytest.raises(Exception, match="kept for ever"):
            sql(house, statement)


def test_reorganization__a_look_that_failed_for_another_reason__is_no_doubt(house: House, node: RudeNode) -> None:
    """What is asked again shows the block as it was read; so nothing has left the chain."""
    house.history()
    cursor = int(sql(house, "SELECT block_number FROM scan_cursor")[0][0])

    looks: list[int] = []

    def broken_once(item: Any) -> Any:
        if item["method"] != "eth_getBlockByNumber" or item["params"][0] != hex(cursor):
            return None
        looks.append(cursor)
        return {"error": {"code": -32603, "message": "internal error"}} if len(looks) == 1 else None

    node.rude("instead", answer=broken_once)
    house.ask("/v1/lido/history")
    assert len(looks) >= 2
    assert sql(house, "SELECT doubt, doubt_count FROM scan_cursor") == [(None, 0)]
