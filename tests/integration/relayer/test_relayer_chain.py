"""Messages on a real chain: executed once, whatever nodes, blocks and strangers do."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from eth_account import Account
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from web3 import Web3
from web3.types import Wei

from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.devnet.deployment import connect, contract_at, deploy
from relayer.signing.signers import parse_keys
from relayer.signing.transactions import Keyring
from relayer.store.events import digest
from relayer.store.models import MessageEvent, NonceRow
from tests.support.relayer import (
    CHAIN_ID,
    CUSTODY,
    CUSTODY_KEY,
    OPERATOR,
    OPERATOR_KEY,
    STRANGER,
    SUBMIT_DATA,
    House,
    Node,
    make_house,
)


def test_message__mined_and_deep_enough__confirmed_with_its_cost(house: House) -> None:
    before = house.node.balance(OPERATOR)
    house.post("m:1")
    house.pump()
    signed_at = house.node.head()
    assert house.message("m:1")["status"] == "broadcast"
    house.mine_and_pump()
    mined = house.message("m:1")
    assert (mined["status"], mined["confirmations"], mined["gas_cost_wei"]) == ("mined", 1, None)
    assert mined["observed_block"] < mined["block_number"]
    house.mine_and_pump()
    found = house.message("m:1")
    assert (found["status"], found["confirmations"], found["block_number"]) == ("confirmed", 2, signed_at + 1)
    assert before - house.node.balance(OPERATOR) == ETHER + int(found["gas_cost_wei"])
    block = house.node.rpc("eth_getBlockByNumber", hex(found["block_number"]), False)
    assert found["block_hash"] == block["hash"]


def test_message__posted_twice_and_pumped_often__executed_once(house: House) -> None:
    house.post("m:1")
    house.pump()
    house.post("m:1")
    house.pump()
    assert house.run("m:1")["status"] == "confirmed"
    house.post("m:1")
    house.mine_and_pump(3)
    assert len(house.node.transactions_from(OPERATOR)) == 1


def test_pumps__several_at_once__every_message_once_without_a_gap(house: House) -> None:
    for number in range(10):
        house.post(f"m:{number}", value_wei=str(number + 1))
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: house.pump(), range(4)))
        house.node.mine()
    house.run("m:9")
    sent = house.node.transactions_from(OPERATOR)
    assert sorted(int(item["nonce"], 16) for item in sent) == list(range(10))
    assert sorted(int(item["value"], 16) for item in sent) == list(range(1, 11))


def test_transfer__to_a_stranger__rejected_without_nonce(house: House) -> None:
    house.post("m:1", to=STRANGER)
    house.post("m:2", to=STRANGER, purpose="payout")
    assert house.run("m:2")["status"] == "confirmed"
    found = house.message("m:1")
    assert (found["status"], found["nonce"], found["reason"]["code"]) == ("rejected", None, "destination_not_allowed")
    assert [item["to"] for item in house.node.transactions_from(OPERATOR)] == [STRANGER.lower()]


def test_sender__key_not_held__rejected(house: House) -> None:
    house.post("m:1", **{"from": STRANGER})
    house.pump()
    assert house.message("m:1")["reason"]["code"] == "unknown_signer"


def test_sender__key_taken_out_while_in_flight__new_ones_rejected_and_old_ones_end(
    database_url: str, node: Node
) -> None:
    make_house(database_url, node).post("m:1")
    make_house(database_url, node).pump()
    without = make_house(database_url, node, keyring=Keyring([parse_keys(CUSTODY_KEY)]))
    without.post("m:2", value_wei="5", **{"from": OPERATOR})
    assert without.run("m:1")["status"] == "confirmed"
    assert without.message("m:2")["reason"]["code"] == "unknown_signer"


def test_value__over_the_days_cap__rejected_and_moves_inside_the_house_are_free(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_value_per_day_wei=10)
    house.post("inside")
    house.post("first", to=STRANGER, purpose="payout", value_wei="6")
    house.post("second", to=STRANGER, purpose="payout", value_wei="5")
    house.post("third", to=STRANGER, purpose="payout", value_wei="4")
    assert house.run("third")["status"] == "confirmed"
    assert house.message("inside")["status"] == "confirmed"
    assert house.message("second")["reason"]["code"] == "daily_value_over_cap"


def test_funds__missing__waits_queued_and_goes_once_there(house: House) -> None:
    house.node.rpc("anvil_setBalance", OPERATOR, hex(ETHER))
    house.post("m:1")
    house.pump()
    found = house.message("m:1")
    assert (found["status"], found["nonce"], found["reason"]["code"]) == ("queued", None, "insufficient_funds")
    house.node.rpc("anvil_setBalance", OPERATOR, hex(2 * ETHER))
    assert house.run("m:1")["status"] == "confirmed"


def test_funds__promised_to_a_message_in_flight__not_promised_twice(house: House) -> None:
    house.node.rpc("anvil_setBalance", OPERATOR, hex(ETHER * 3 // 2))
    house.post("m:1")
    house.post("m:2")
    house.pump()
    assert house.message("m:1")["status"] == "broadcast"
    assert house.message("m:2")["reason"]["code"] == "insufficient_funds"


def test_reorg__mined_block_gone__undone_sent_again_and_confirmed_once(house: House) -> None:
    house.node.mine(3)
    house.post("m:1")
    house.pump()
    house.mine_and_pump()
    mined = house.message("m:1")
    assert mined["status"] == "mined"
    house.node.rpc("anvil_rollback", 1)
    house.pump()
    undone = house.message("m:1")
    assert (undone["status"], undone["block_number"], undone["block_hash"]) == ("broadcast", None, None)
    assert undone["observed_block"] == mined["observed_block"], "it goes down with no reorg"
    assert house.run("m:1")["status"] == "confirmed"
    assert len(house.node.transactions_from(OPERATOR)) == 1
    assert house.message("m:1")["attempts"] == mined["attempts"]


def test_mempool__dropped__same_bytes_sent_again(house: House) -> None:
    house.post("m:1")
    house.pump()
    tx_hash = house.message("m:1")["tx_hash"]
    house.node.rpc("anvil_dropTransaction", tx_hash)
    house.mine_and_pump()
    found = house.run("m:1")
    assert (found["status"], found["tx_hash"], len(found["attempts"])) == ("confirmed", tx_hash, 1)


def test_endpoint__first_one_dead__the_other_serves(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, rpc_urls=("http://127.0.0.1:1", node.url))
    house.post("m:1")
    assert house.run("m:1")["status"] == "confirmed"


def test_chain__unreachable__nothing_happens_and_nothing_is_lost(database_url: str, node: Node) -> None:
    cut_off = make_house(database_url, node, rpc_urls=("http://127.0.0.1:1",))
    cut_off.post("m:1")
    cut_off.pump()
    assert cut_off.message("m:1")["status"] == "queued"
    assert make_house(database_url, node).run("m:1")["status"] == "confirmed"


def test_chain__another_one__nothing_is_signed(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, chain_id=1)
    house.post("m:1")
    house.pump()
    assert house.message("m:1")["status"] == "queued"


def test_nonce__taken_by_a_stranger_with_the_key__conflict_and_quarantine(house: House) -> None:
    house.post("m:1")
    house.post("m:2")
    house.pump()
    foreign = Account.sign_transaction(
        {
            "type": 2, "chainId": CHAIN_ID, "nonce": 0, "to": STRANGER, "value": 1, "gas": 21_000, "data": "0x",
            "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**10,
        },
        "0x" + OPERATOR_KEY,
    )  # fmt: skip
    foreign_hash = house.node.rpc("eth_sendRawTransaction", foreign.raw_transaction.to_0x_hex())
    house.mine_and_pump(3)
    found = house.message("m:1")
    assert (found["status"], found["reason"]["code"]) == ("conflict", "nonce_taken")
    assert foreign_hash in found["reason"]["detail"]
    assert house.message("m:2")["status"] == "confirmed"
    house.post("m:3")
    house.mine_and_pump(2)
    assert house.message("m:3")["reason"]["code"] == "signer_not_active"
    assert house.client.get("/v1/signers").get_json()["items"][0]["state"] == "quarantined"
    with transaction(house.context.sessions) as session:
        assert session.scalars(select(NonceRow.state).order_by(NonceRow.nonce)).all() == ["foreign", "settled"]


def test_signer__chain_is_ahead_of_the_database__quarantined(house: House) -> None:
    house.pump()
    house.node.rpc("anvil_setNonce", OPERATOR, "0x5")
    house.node.mine()
    house.post("m:1")
    house.pump()
    assert house.message("m:1")["reason"]["code"] == "signer_doubted"
    house.mine_and_pump()
    assert house.message("m:1")["status"] == "queued"
    assert house.client.get("/v1/signers").get_json()["items"][0]["state"] == "quarantined"


def test_lido__simulation_and_chain__reverts_are_read(database_url: str, node: Node) -> None:
    node.rpc("evm_setAutomine", True)
    lido = deploy(node.url)
    node.mine_by_hand()
    house = make_house(database_url, node, steth_address=lido.steth, queue_address=lido.withdrawal_queue)
    submit = {"to": lido.steth, "data": SUBMIT_DATA, "gas_limit": 300_000}
    house.post("empty", **submit, value_wei="0")
    house.pump()
    waits = house.message("empty")
    assert (waits["status"], waits["reason"]["code"]) == ("queued", "simulation_reverted")
    house.mine_and_pump()
    refused = house.message("empty")
    assert (refused["status"], refused["nonce"]) == ("rejected", None)
    assert refused["reason"] == {"code": "simulation_reverted", "detail": "ZERO_DEPOSIT"}
    assert refused["passing"] is None

    house.post("good", **submit)
    assert house.run("good")["status"] == "confirmed"

    steth = contract_at(connect(node.url), "Lido", lido.steth)
    steth.functions.pauseStaking().transact(
        {"from": Web3.to_checksum_address(lido.owner), "maxPriorityFeePerGas": Wei(10**11)}
    )
    house.post("late", **submit)
    late = house.run("late")
    assert (late["status"], late["revert"]) == ("reverted", {"name": "Error", "detail": "STAKING_PAUSED"})
    assert late["passing"] == "staking_paused"
    assert int(late["gas_cost_wei"]) > 0

    house.post("later", **submit)
    house.pump()
    assert house.message("later")["passing"] is None  # it waits, and has not ended
    house.mine_and_pump(2)
    later = house.message("later")
    assert (later["status"], later["reason"]["detail"]) == ("rejected", "STAKING_PAUSED")
    assert later["passing"] == "staking_paused"


def test_history__attempts_and_events__cannot_be_changed(house: House) -> None:
    house.post("m:1")
    house.run("m:1")
    for statement in (
        "DELETE FROM attempts",
        "UPDATE attempts SET nonce = 9",
        "DELETE FROM message_events",
        "DELETE FROM slots",
        "UPDATE messages SET status = 'reverted'",
    ):
        with pytest.raises(DBAPIError), transaction(house.context.sessions) as session:
            session.execute(text(statement))
    with transaction(house.context.sessions) as session:
        rows = session.scalars(select(MessageEvent).order_by(MessageEvent.number)).all()
    assert [row.type for row in rows] == ["accepted", "signed", "broadcast", "mined", "settled"]
    previous = ""
    for row in rows:
        assert row.previous_digest == previous
        assert row.digest == digest(previous, row.message_id, row.number, row.type, row.body)
        previous = row.digest


def test_transfer__from_custody__signed_with_its_own_key(house: House) -> None:
    house.post("m:1", to=OPERATOR, **{"from": CUSTODY})
    assert house.run("m:1")["from"] == CUSTODY
    assert len(house.node.transactions_from(CUSTODY)) == 1
