"""Another attempt in the same slot: higher prices, cancels, deadlines; the hash that is mined decides."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from apps.common.database import transaction
from relayer.store.models import Attempt
from tests.support.chaos import SEND, chaos_proxy
from tests.support.relayer import CUSTODY, OPERATOR, House, Node, make_house

GWEI = 10**9
SPIKE = 100 * GWEI


def fees(attempt: dict[str, Any]) -> tuple[int, int]:
    return int(attempt["max_fee_per_gas_wei"]), int(attempt["max_priority_fee_per_gas_wei"])


def assert_raised(attempts: list[dict[str, Any]]) -> None:
    """Each is an eighth or more above the highest before it, in both fields."""
    for number in range(1, len(attempts)):
        for place in (0, 1):
            highest = max(fees(item)[place] for item in attempts[:number])
            assert fees(attempts[number])[place] * 1000 >= highest * 1125


def stuck(house: House, message_id: str = "m:1") -> dict[str, Any]:
    """Post and broadcast a message, then make gas so dear that its bytes are not mined."""
    house.post(message_id)
    house.pump()
    house.node.base_fee(SPIKE)
    return house.message(message_id)


def busy_block(node: Node, lowest_tip_gwei: int) -> None:
    """Mine a block filled by eight others, each paying a gwei more of tip than the one before."""
    node.rpc("evm_setBlockGasLimit", hex(8 * 21_000))
    node.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    for place, other in enumerate(node.rpc("eth_accounts")[2:10]):
        tip = (lowest_tip_gwei + place) * GWEI
        fields = {"maxFeePerGas": hex(tip + 10 * GWEI), "maxPriorityFeePerGas": hex(tip)}
        node.rpc("eth_sendTransaction", {"from": other, "to": other, "gas": hex(21_000), **fields})
    node.mine()


def in_blocks(node: Node, blocks: int) -> str:
    """A deadline so many of Ethereum's blocks, and most of the next, after the latest."""
    head_time = int(node.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    return datetime.fromtimestamp(head_time + 12 * blocks + 10, UTC).isoformat()


def whys(house: House, message_id: str) -> list[str]:
    """Why each further attempt was signed."""
    events = house.client.get(f"/v1/transactions/{message_id}/events").get_json()["items"]
    return [item["body"]["why"] for item in events if item["type"] == "replaced"]


def test_price__below_the_base_fee__raised_after_two_blocks_and_executed_once(house: House) -> None:
    first = stuck(house)
    house.pump()
    assert house.message("m:1")["attempts"] == first["attempts"]
    house.mine_and_pump()
    found = house.message("m:1")
    assert [item["kind"] for item in found["attempts"]] == ["payload", "payload"]
    assert_raised(found["attempts"])
    assert fees(found["attempts"][1])[0] >= SPIKE
    done = house.run("m:1")
    assert (done["status"], done["nonce"], done["tx_hash"]) == ("confirmed", 0, found["attempts"][1]["tx_hash"])
    assert len(house.node.transactions_from(OPERATOR)) == 1


def test_price__rises_again_and_again__each_attempt_above_the_highest_before(house: House) -> None:
    stuck(house)
    for times in (10, 100):
        house.mine_and_pump()
        house.node.base_fee(times * SPIKE)
        house.pump()
    house.mine_and_pump()
    attempts = house.message("m:1")["attempts"]
    assert len(attempts) > 2
    assert_raised(attempts)
    assert house.run("m:1", ticks=30)["status"] == "confirmed"
    assert len(house.node.transactions_from(OPERATOR)) == 1


def test_price__held_by_the_cap__same_bytes_sent_until_gas_is_cheap_again(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_gas_per_tx_wei=21_000 * 10 * 10**9)
    first = stuck(house)
    house.mine_and_pump(3)
    held = house.message("m:1")
    assert held["attempts"] == first["attempts"]
    assert held["reason"]["code"] == "fee_capped"
    node.rpc("anvil_dropTransaction", first["tx_hash"])
    house.mine_and_pump()
    node.base_fee(10**9)
    done = house.run("m:1")
    assert (done["status"], done["tx_hash"], done["reason"]) == ("confirmed", first["tx_hash"], None)
    events = [item["type"] for item in house.client.get("/v1/transactions/m:1/events").get_json()["items"]]
    assert events.count("fee_capped") == 1


def test_price__held_by_the_days_cap__no_new_attempt(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_gas_per_day_wei=21_000 * 10 * 10**9)
    first = stuck(house)
    house.mine_and_pump(3)
    found = house.message("m:1")
    assert (found["attempts"], found["reason"]["code"]) == (first["attempts"], "fee_capped")
    house.post("m:2", value_wei="5")
    house.pump()
    assert house.message("m:2")["reason"]["code"] == "daily_gas_over_cap"


def test_price__market_above_the_cap__waits_unsigned(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_gas_per_tx_wei=21_000 * 10 * 10**9)
    node.base_fee(SPIKE)
    house.post("m:1")
    house.pump()
    found = house.message("m:1")
    assert (found["status"], found["nonce"], found["reason"]["code"]) == ("queued", None, "fee_over_cap")
    node.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    node.mine(2)
    assert house.run("m:1")["status"] == "confirmed"


def test_speed_up__asked_twice__one_raise_at_the_next_tick(house: House) -> None:
    house.post("m:1")
    assert house.client.post("/v1/transactions/m:1/speed-up").get_json()["code"] == "not_signed"
    house.pump()
    for _ in range(2):
        assert house.client.post("/v1/transactions/m:1/speed-up").status_code == 202
    house.pump()
    house.pump()
    attempts = house.message("m:1")["attempts"]
    assert len(attempts) == 2
    assert_raised(attempts)
    assert house.run("m:1")["status"] == "confirmed"
    assert house.client.post("/v1/transactions/m:1/speed-up").get_json()["code"] == "already_final"


def test_cancel__signed_and_not_mined__empty_transaction_wins_and_says_cancelled(house: House) -> None:
    stuck(house)
    answer = house.client.post("/v1/transactions/m:1/cancel")
    assert (answer.status_code, answer.get_json()["reason"]["code"]) == (202, "cancel_requested")
    assert house.client.post("/v1/transactions/m:1/cancel").status_code == 202
    assert house.client.post("/v1/transactions/m:1/speed-up").get_json()["code"] == "being_replaced"
    done = house.run("m:1")
    assert (done["status"], done["reason"]["code"]) == ("cancelled", "replaced")
    assert [item["kind"] for item in done["attempts"]] == ["payload", "noop"]
    assert_raised(done["attempts"])
    (sent,) = house.node.transactions_from(OPERATOR)
    assert (sent["to"], sent["value"], sent["hash"]) == (OPERATOR.lower(), "0x0", done["tx_hash"])
    assert int(done["gas_cost_wei"]) > 0
    assert house.client.post("/v1/transactions/m:1/cancel").status_code == 200


def test_cancel__payload_mined_first__told_as_confirmed(house: House) -> None:
    """The intent decides nothing: what was mined does."""
    house.post("m:1")
    house.pump()
    house.node.mine()
    assert house.client.post("/v1/transactions/m:1/cancel").status_code == 202
    done = house.run("m:1")
    assert (done["status"], [item["kind"] for item in done["attempts"]]) == ("confirmed", ["payload"])
    assert house.client.post("/v1/transactions/m:1/cancel").get_json()["code"] == "already_final"


def test_cancel__empty_transaction_signed_and_payload_mined__told_as_confirmed(house: House) -> None:
    stuck(house)
    payload = house.message("m:1")["tx_hash"]
    with transaction(house.context.sessions) as session:
        raw = session.scalars(select(Attempt.raw)).one()
    house.client.post("/v1/transactions/m:1/cancel")
    house.pump()
    noop = house.message("m:1")["tx_hash"]
    house.node.rpc("anvil_dropTransaction", noop)
    house.node.base_fee(10**9)
    house.node.rpc("eth_sendRawTransaction", "0x" + bytes(raw).hex())
    house.node.mine()
    done = house.run("m:1")
    assert (done["status"], done["tx_hash"], done["reason"]) == ("confirmed", payload, None)
    assert house.node.balance(CUSTODY) > house.node.balance(OPERATOR)


def test_deadline__passed_after_signing__expired_by_an_empty_transaction(house: House) -> None:
    house.post("m:1", deadline=(datetime.now(UTC) + timedelta(seconds=2)).isoformat())
    house.pump()
    assert house.message("m:1")["status"] == "broadcast"
    house.node.base_fee(SPIKE)
    for _ in range(300):
        house.pump()
        if house.message("m:1")["attempts"][-1]["kind"] == "noop":
            break
    done = house.run("m:1")
    *payloads, last = [item["kind"] for item in done["attempts"]]
    assert (done["status"], set(payloads), last) == ("expired", {"payload"}, "noop")
    assert house.node.executions() == {}


def test_deadline__near__signed_at_a_higher_tip_and_raised_by_each_block_that_passes_it_by(house: House) -> None:
    busy_block(house.node, 1)
    house.post("m:urgent", deadline=in_blocks(house.node, 5))
    house.post("m:calm", value_wei="2")
    house.pump()
    urgent, calm = house.message("m:urgent"), house.message("m:calm")
    assert (fees(urgent["attempts"][0])[1], fees(calm["attempts"][0])[1]) == (8 * GWEI, 4 * GWEI)
    offers = [
        house.client.get(f"/v1/transactions/{name}/explain").get_json()["market"] for name in ("m:urgent", "m:calm")
    ]
    assert [offer["max_priority_fee_per_gas_wei"] for offer in offers] == [str(8 * GWEI), str(4 * GWEI)]
    for lowest_tip_gwei in (20, 100):
        busy_block(house.node, lowest_tip_gwei)
        house.pump()
        house.pump()
    urgent = house.message("m:urgent")
    assert whys(house, "m:urgent") == ["tip_below_market", "tip_below_market"]
    assert_raised(urgent["attempts"])
    assert [fees(item)[1] for item in urgent["attempts"]] == [
        8 * GWEI,
        (8 + 27) * GWEI // 2,
        (8 + 27 + 107) * GWEI // 3,
    ]
    assert house.message("m:calm")["attempts"] == calm["attempts"]
    assert house.run("m:urgent")["status"] == house.run("m:calm")["status"] == "confirmed"


def test_price__next_in_line_only_now__not_raised_before_blocks_passed_it_by_there(house: House) -> None:
    busy_block(house.node, 1)
    house.post("m:0", value_wei="1")
    house.post("m:1", value_wei="2")
    house.pump()
    for _ in range(4):
        busy_block(house.node, 20)
        house.pump()
    assert whys(house, "m:0") == ["tip_below_market"] * 2
    house.node.rpc("evm_setBlockGasLimit", hex(21_000))
    house.node.mine()
    house.pump()
    assert house.message("m:0")["status"] == "mined"
    assert whys(house, "m:1") == []
    for expected in ([], ["tip_below_market"]):
        busy_block(house.node, 20)
        house.pump()
        assert whys(house, "m:1") == expected
    assert house.run("m:1")["status"] == "confirmed"
    assert house.node.executions() == {1: 1, 2: 1}


def test_price__of_those_behind__raised_where_refused_or_below_the_base_fee_only(database_url: str, node: Node) -> None:
    with chaos_proxy(node.url) as chaos:
        house = make_house(database_url, node, rpc_urls=(chaos.url,))
        busy_block(node, 1)
        house.post("m:0", value_wei="1")
        house.pump()
        chaos.fault("error", SEND, times=2, text="transaction underpriced")
        house.post("m:1", value_wei="2", deadline=in_blocks(node, 5))
        house.post("m:2", value_wei="3")
        house.post("m:3", value_wei="4")
        house.pump()
        assert chaos.used == ["error", "error"]
        node.rpc("evm_setBlockGasLimit", hex(20_999))
        house.mine_and_pump()
        assert [whys(house, f"m:{place}") for place in range(4)] == [[], [], [], []]
        busy_block(node, 20)
        house.pump()
        refused = ["refused_by_price"]
        assert [whys(house, f"m:{place}") for place in range(4)] == [["tip_below_market"], refused, refused, []]
        node.base_fee(SPIKE)
        house.pump()
        assert whys(house, "m:3") == ["below_base_fee"]
        for place in range(4):
            assert house.run(f"m:{place}", ticks=12)["status"] == "confirmed"
        assert node.executions() == {1: 1, 2: 1, 3: 1, 4: 1}


def test_those_behind__a_stuck_one__keep_their_price_and_go_when_it_goes(house: House) -> None:
    for number in range(3):
        house.post(f"m:{number}", value_wei=str(number + 1))
    house.pump()
    house.node.base_fee(SPIKE)
    house.client.post("/v1/transactions/m:0/cancel")
    for number in range(3):
        house.run(f"m:{number}", ticks=12)
    assert [house.message(f"m:{number}")["status"] for number in range(3)] == ["cancelled", "confirmed", "confirmed"]
    assert house.node.executions() == {2: 1, 3: 1}


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("UPDATE messages SET to_address = from_address", "UPDATE of messages is refused"),
        ("UPDATE messages SET nonce = 7", "UPDATE of messages is refused"),
        ("UPDATE messages SET nonce = NULL", "UPDATE of messages is refused"),
        ("UPDATE messages SET gas_limit = 1", "UPDATE of messages is refused"),
        ("DELETE FROM messages", "DELETE of messages is refused"),
        ("TRUNCATE messages CASCADE", "TRUNCATE of messages is refused"),
        ("UPDATE slots SET message_id = 'm:2'", "UPDATE of slots is refused"),
        ("UPDATE slots SET nonce = 9", "UPDATE of slots is refused"),
        ("DELETE FROM slots", "DELETE of slots is refused"),
        ("UPDATE attempts SET raw = ''", "UPDATE of attempts is refused"),
        ("DELETE FROM attempts", "DELETE of attempts is refused"),
        ("TRUNCATE attempts CASCADE", "TRUNCATE of attempts is refused"),
        ("UPDATE sends SET reply = 'known'", "UPDATE of sends is refused"),
        ("DELETE FROM sends", "DELETE of sends is refused"),
        ("UPDATE message_events SET body = '{}'", "UPDATE of message_events is refused"),
        ("UPDATE signers SET next_nonce = 0", "UPDATE of signers is refused"),
        (
            "INSERT INTO slots (chain_id, address, nonce, message_id) SELECT chain_id, address, 9, message_id FROM slots",
            "uq_slots_message_id",
        ),
        (
            "INSERT INTO slots (chain_id, address, nonce, message_id) SELECT chain_id, address, nonce, 'm:2' FROM slots",
            "pk_slots",
        ),
        (
            "INSERT INTO attempts SELECT 'x', chain_id, address, 9, 2, kind, raw, 1, 1, 1, 1 FROM attempts",
            "fk_attempts_chain_id_address_nonce",
        ),
    ],
)
def test_database__what_carries_the_safety__refuses(house: House, statement: str, refusal: str) -> None:
    house.post("m:1")
    house.pump()
    house.post("m:2")  # without a nonce yet, so that a slot may be given to it as far as keys to other tables say
    with pytest.raises(DBAPIError, match=refusal), transaction(house.context.sessions) as session:
        session.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("UPDATE messages SET status = 'broadcast'", "UPDATE of messages is refused"),
        ("UPDATE messages SET tx_hash = 'x'", "UPDATE of messages is refused"),
        ("UPDATE slots SET state = 'open'", "UPDATE of slots is refused"),
        (
            "INSERT INTO attempts SELECT 'x', chain_id, address, nonce, 2, kind, raw, 1, 1, 1, 1 FROM attempts",
            "nonce 0 is closed",
        ),
    ],
)
def test_database__after_the_end__refuses(house: House, statement: str, refusal: str) -> None:
    house.post("m:1")
    assert house.run("m:1")["status"] == "confirmed"
    with pytest.raises(DBAPIError, match=refusal), transaction(house.context.sessions) as session:
        session.execute(text(statement))
