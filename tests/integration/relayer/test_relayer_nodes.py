"""Nodes that lose, repeat, delay and lie: every payload is executed once, and nothing untrue is ever told."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account

from tests.support.anvil import start_anvil
from tests.support.chaos import RECEIPT, SEND, Chaos, chaos_proxy
from tests.support.relayer import CHAIN_ID, CUSTODY, OPERATOR, OPERATOR_KEY, STRANGER, House, Node, make_house

DIALECTS = (
    "already known", "AlreadyKnown", "ALREADY_EXISTS: already known", "Known transaction",
    "transaction already imported", "nonce too low: next nonce 5, tx nonce 0", "OldNonce, Current nonce: 5",
    "Nonce too low", "Transaction nonce is too low. Try incrementing the nonce.",
    "nonce too high: tx nonce 7, gapped nonce 5", "NonceGap, Future nonce. Expected nonce: 3",
    "replacement transaction underpriced", "ReplacementNotAllowed", "FEE_TOO_LOW: underpriced",
    "transaction underpriced", "txpool is full", "insufficient funds for gas * price + value: balance 0, tx cost 1",
    "Upfront cost exceeds account balance", "tx fee (1.00 ether) exceeds the configured cap (0.50 ether)",
    "intrinsic gas too low", "exceeds block gas limit", "invalid sender", "Invalid signature", "node is syncing",
    "Internal error", "something that nobody has seen yet",
)  # fmt: skip


@pytest.fixture
def chaos(node: Node) -> Iterator[Chaos]:
    with chaos_proxy(node.url) as proxy:
        yield proxy


@pytest.fixture
def bad_house(database_url: str, node: Node, chaos: Chaos) -> House:
    return make_house(database_url, node, rpc_urls=(chaos.url,))


@pytest.mark.parametrize("kind", ["lose", "gateway", "refuse", "duplicate", "wrong_hash", "null"])
def test_send__reply_spoilt__nonce_kept_and_executed_once(bad_house: House, chaos: Chaos, kind: str) -> None:
    chaos.fault(kind, SEND)
    bad_house.post("m:1")
    bad_house.pump()
    first = bad_house.message("m:1")
    assert first["status"] == ("broadcast" if kind == "duplicate" else "signed")
    found = bad_house.run("m:1")
    assert (found["status"], found["nonce"], found["attempts"]) == ("confirmed", 0, first["attempts"])
    assert chaos.used == [kind]
    assert len(bad_house.node.transactions_from(OPERATOR)) == 1


def test_send__node_hangs__nonce_kept_and_executed_once(bad_house: House, chaos: Chaos) -> None:
    chaos.fault("hang", SEND)
    bad_house.post("m:1")
    bad_house.pump()
    assert bad_house.message("m:1")["status"] == "signed"
    chaos.calm()
    assert bad_house.run("m:1")["status"] == "confirmed"
    assert len(bad_house.node.transactions_from(OPERATOR)) == 1


def test_send__errors_of_every_client__though_delivered__executed_once(bad_house: House, chaos: Chaos) -> None:
    """Whatever a node says after it took the bytes, and however often, the message keeps its one nonce."""
    for number, text in enumerate(DIALECTS):
        chaos.fault("error", SEND, text=text)
        bad_house.post(f"m:{number}", value_wei=str(number + 1))
    bad_house.pump()
    assert chaos.used == ["error"] * len(DIALECTS)
    bad_house.run(f"m:{len(DIALECTS) - 1}")
    for number, text in enumerate(DIALECTS):
        found = bad_house.message(f"m:{number}")
        assert (found["status"], found["nonce"], len(found["attempts"])) == ("confirmed", number, 1), text
    assert bad_house.node.executions() == {number + 1: 1 for number in range(len(DIALECTS))}


def test_send__same_reply_again_and_again__in_the_history_once_and_each_time_among_the_sends(
    bad_house: House, chaos: Chaos
) -> None:
    chaos.fault("error", SEND, times=3, text="txpool is full")
    bad_house.post("m:1")
    bad_house.pump()
    for _ in range(3):
        bad_house.node.rpc("anvil_dropTransaction", bad_house.message("m:1")["tx_hash"])
        bad_house.mine_and_pump()
    assert chaos.used == ["error"] * 3
    events = bad_house.client.get("/v1/transactions/m:1/events").get_json()["items"]
    assert [item["type"] for item in events][:4] == ["accepted", "signed", "reply", "broadcast"]
    first = bad_house.client.get("/v1/transactions/m:1/sends?limit=2").get_json()
    rest = bad_house.client.get(f"/v1/transactions/m:1/sends?after={first['next']}").get_json()
    sends = first["items"] + rest["items"]
    assert [(item["reply"], item["text"]) for item in sends] == [("pool_busy", "txpool is full")] * 3 + [
        ("accepted", "")
    ]
    assert {item["tx_hash"] for item in sends} == {bad_house.message("m:1")["tx_hash"]}
    assert all(item["answered_at"] >= item["at"] for item in sends)
    assert rest["next"] is None


def test_cancel__of_what_no_node_took__says_so_until_the_empty_transaction_is_final(
    bad_house: House, chaos: Chaos
) -> None:
    chaos.fault("error", SEND, text="txpool is full")
    bad_house.post("m:1")
    bad_house.pump()
    assert bad_house.message("m:1")["reason"]["code"] == "node_pool_busy"
    bad_house.client.post("/v1/transactions/m:1/cancel")
    for status in ("broadcast", "mined"):
        bad_house.pump()
        found = bad_house.message("m:1")
        assert (found["status"], found["reason"]["code"]) == (status, "cancel_requested")
        bad_house.node.mine()
    assert bad_house.run("m:1")["reason"]["code"] == "replaced"


def test_send__error_with_what_cannot_be_stored__noted_readably_and_executed_once(
    bad_house: House, chaos: Chaos
) -> None:
    chaos.fault("error", SEND, text="nonce too\0 low \ud800\x1b[2J")
    bad_house.post("m:1")
    bad_house.pump()
    assert chaos.used == ["error"]
    said = bad_house.client.get("/v1/transactions/m:1/events").get_json()["items"][-1]["body"]["text"]
    assert said == "nonce too� low ��[2J"
    assert bad_house.run("m:1")["status"] == "confirmed"
    assert len(bad_house.node.transactions_from(OPERATOR)) == 1


@pytest.mark.parametrize("kind", ["null", "stale"])
def test_receipt__kept_back__nothing_ends_until_it_is_shown(bad_house: House, chaos: Chaos, kind: str) -> None:
    bad_house.post("m:1")
    bad_house.pump()
    if kind == "stale":
        bad_house.context.endpoints.all[0].call(RECEIPT, [bad_house.message("m:1")["tx_hash"]])
    chaos.fault(kind, RECEIPT, times=10)
    for _ in range(5):
        bad_house.node.mine()
        bad_house.pump()
        found = bad_house.message("m:1")
        assert (found["status"], found["nonce"]) == ("broadcast", 0)
    chaos.calm()
    found = bad_house.run("m:1")
    assert (found["status"], len(found["attempts"])) == ("confirmed", 1)
    assert len(bad_house.node.transactions_from(OPERATOR)) == 1


def test_nonce__stale_reads__no_second_nonce_and_no_quarantine(bad_house: House, chaos: Chaos) -> None:
    bad_house.post("m:1")
    assert bad_house.run("m:1")["status"] == "confirmed"
    bad_house.post("m:2", value_wei="5")
    chaos.fault("stale", "eth_getTransactionCount", times=12)
    bad_house.pump()
    bad_house.mine_and_pump(2)
    chaos.calm()
    found = bad_house.run("m:2")
    assert (found["status"], found["nonce"]) == ("confirmed", 1)
    assert len(bad_house.node.transactions_from(OPERATOR)) == 2


def test_node__never_takes_the_bytes__nonce_is_freed_by_an_empty_transaction(bad_house: House, chaos: Chaos) -> None:
    """A node that calls the payload invalid for good must not stop the messages behind it."""
    refusal = {"error": {"code": -32000, "message": "invalid sender"}}
    chaos.instead = lambda item: refusal if item["method"] == SEND else None
    bad_house.post("m:1")
    for _ in range(1_000):
        bad_house.pump()
        if bad_house.message("m:1")["attempts"][-1:] and bad_house.message("m:1")["attempts"][-1]["kind"] == "noop":
            break
    chaos.instead = lambda _item: None
    found = bad_house.run("m:1")
    assert (found["status"], found["reason"]["code"]) == ("rejected", "replaced")
    assert [item["kind"] for item in found["attempts"]] == ["payload", "noop"]
    assert bad_house.node.executions() == {}


def test_endpoints__on_different_forks__nothing_ends_until_they_agree(database_url: str, node: Node) -> None:
    with start_anvil() as other:
        fork = Node(other.url)
        fork.mine_by_hand()
        fork.rpc("evm_increaseTime", 100)  # equal blocks would have equal hashes
        house = make_house(database_url, node, rpc_urls=(node.url, fork.url))
        house.post("m:1")
        house.pump()
        for _ in range(4):  # both chains have it, in blocks of their own
            node.mine()
            fork.mine()
            house.pump()
        assert house.message("m:1")["status"] == "mined"
        assert len(node.transactions_from(OPERATOR)) == len(fork.transactions_from(OPERATOR)) == 1
    for _ in range(3):  # the fork is gone for good: the other's word is enough
        house.mine_and_pump()
    assert house.message("m:1")["status"] == "confirmed"


def test_endpoints__quorum_of_two_demanded__one_alone_ends_nothing(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, rpc_urls=(node.url, "http://127.0.0.1:1"), settle_quorum=2)
    house.post("m:1")
    house.pump()
    house.mine_and_pump(6)
    assert house.message("m:1")["status"] == "mined"


def test_endpoints__two_that_agree__confirmed(database_url: str, node: Node, chaos: Chaos) -> None:
    house = make_house(database_url, node, rpc_urls=(node.url, chaos.url), settle_quorum=2)
    house.post("m:1")
    assert house.run("m:1")["status"] == "confirmed"


def test_endpoints__second_keeps_the_receipt_back__nothing_ends(database_url: str, node: Node, chaos: Chaos) -> None:
    house = make_house(database_url, node, rpc_urls=(node.url, chaos.url))
    house.post("m:1")
    house.pump()
    chaos.fault("null", RECEIPT, times=3)
    house.mine_and_pump(4)
    assert house.message("m:1")["status"] == "mined"
    chaos.calm()
    assert house.run("m:1")["status"] == "confirmed"


def test_endpoint__lies_about_the_nonce__no_quarantine_where_another_knows_better(
    database_url: str, node: Node, chaos: Chaos
) -> None:
    house = make_house(database_url, node, rpc_urls=(chaos.url, node.url))
    house.post("m:1")
    assert house.run("m:1")["status"] == "confirmed"
    lies: list[object] = []

    def lie(item: dict[str, Any]) -> dict[str, Any] | None:
        if item["method"] != "eth_getTransactionCount":
            return None
        lies.append(item["params"])
        return {"result": "0x63"}

    chaos.instead = lie
    house.pump()
    chaos.instead = lambda _item: None
    assert lies, "the endpoint that lies was not asked"
    assert house.client.get("/v1/signers").get_json()["items"][0]["state"] == "active"


def test_deep_reorg__settled_block_gone__same_bytes_sent_again(house: House) -> None:
    """Deeper than the horizon: the outcome that was told is made true again, and those behind are not held up."""
    house.node.mine(3)
    house.post("m:1")
    told = house.run("m:1")
    house.post("m:2", value_wei="5")
    house.pump()
    house.mine_and_pump()
    house.node.rpc("anvil_rollback", 4)
    assert house.node.executions() == {}
    assert house.run("m:2", ticks=8)["status"] == "confirmed"
    assert house.node.transactions_from(OPERATOR)[0]["hash"] == told["tx_hash"]
    assert house.message("m:1")["status"] == "confirmed"
    types = [item["type"] for item in house.client.get("/v1/transactions/m:1/events").get_json()["items"]]
    assert types[-1] == "sent_again_after_deep_reorg"


def test_reorg__stranger_takes_the_nonce_on_the_new_branch__conflict_not_confirmed(house: House) -> None:
    house.post("m:1")
    house.pump()
    house.mine_and_pump()
    assert house.message("m:1")["status"] == "mined"
    fields = {
        "type": 2, "chainId": CHAIN_ID, "nonce": 0, "to": STRANGER, "value": 1, "gas": 21_000, "data": "0x",
        "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**10,
    }  # fmt: skip
    foreign = Account.sign_transaction(fields, "0x" + OPERATOR_KEY)
    house.node.rpc("anvil_rollback", 1)
    house.node.rpc("eth_sendRawTransaction", foreign.raw_transaction.to_0x_hex())
    house.mine_and_pump(3)
    found = house.message("m:1")
    assert (found["status"], found["reason"]["code"]) == ("conflict", "nonce_taken")
    assert found["tx_hash"] not in {item["hash"] for item in house.node.transactions_from(OPERATOR)}
    assert house.node.balance(CUSTODY) == house.node.balance(STRANGER) - 1
