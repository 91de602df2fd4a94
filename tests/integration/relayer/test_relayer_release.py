"""Lifting a quarantine: only by proof, and nothing that was done is ever done again."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError

from apps.common.database import transaction
from apps.common.wei import ETHER
from relayer.lifecycle.fees import OLD_AFTER_BLOCKS
from relayer.lifecycle.release import NONCES_PER_CALL
from relayer.signing.signers import parse_keys
from relayer.signing.transactions import Keyring
from relayer.store.models import ExternalMatch, ExternalTransaction
from tests.support.chaos import RECEIPT, Chaos, chaos_proxy
from tests.support.postgres import Server
from tests.support.relayer import (
    CUSTODY,
    CUSTODY_KEY,
    OPERATOR,
    House,
    Node,
    make_house,
)

COUNT, BLOCK = "eth_getTransactionCount", "eth_getBlockByNumber"


def ask(house: House, action: str) -> tuple[str, str]:
    """State or code, and the detail where it was refused."""
    answer = house.client.post(f"/v1/signers/{OPERATOR}/{action}")
    body = answer.get_json()
    return (body["state"], "") if answer.status_code == 200 else (body["code"], body["detail"])


def operator(house: House) -> dict[str, Any]:
    found: dict[str, Any] = house.client.get("/v1/signers").get_json()["items"][0]
    return found


def recorded(house: House) -> list[tuple[int, str | None, str | None]]:
    """Nonce, hash and own message of each foreign transaction."""
    with transaction(house.context.sessions) as session:
        rows = session.scalars(select(ExternalTransaction).order_by(ExternalTransaction.nonce))
        return [(row.nonce, row.tx_hash, row.message_id) for row in rows]


def test_release__foreign_use__only_once_all_is_final_and_then_the_next_nonce_is_right(house: House) -> None:
    assert ask(house, "release")[0] == "signer_not_found"
    house.post("m:1")
    house.pump()
    assert ask(house, "release")[0] == "not_quarantined"
    hashes = [house.node.send_as_stranger(1)]
    house.post("m:2", value_wei="5")
    house.pump()
    house.mine_and_pump()
    assert house.message("m:1")["status"] == "mined"
    code, detail = ask(house, "release")
    assert (code, "m:1" in detail) == ("signer_not_at_rest", True)
    house.mine_and_pump()
    assert house.message("m:1")["status"] == "confirmed"

    hashes.append(house.node.send_as_stranger(2))
    assert ask(house, "release") == (
        "signer_not_at_rest",
        "Its nonce is 2 at the horizon, 2 at the latest block and 3 with what is pending; they must be one.",
    )
    house.mine_and_pump()
    assert ask(house, "release")[0] == "signer_not_at_rest"  # mined, not final
    assert (operator(house)["state"], recorded(house)) == ("quarantined", [])
    house.mine_and_pump()
    assert ask(house, "resume")[0] == "signer_quarantined"
    assert ask(house, "release")[0] == "paused"
    assert operator(house)["next_nonce"] == 3
    assert recorded(house) == [(1, hashes[0], None), (2, hashes[1], None)]
    assert ask(house, "release")[0] == "not_quarantined"

    house.mine_and_pump(2)
    assert house.message("m:2")["status"] == "queued"
    assert ask(house, "resume")[0] == "active"
    found = house.run("m:2")
    assert (found["status"], found["nonce"]) == ("confirmed", 3)
    assert house.node.executions() == {ETHER: 1, 5: 1}


def test_release__stranger_took_a_slot__recorded_with_its_message_and_bound_to_it(house: House) -> None:
    """What took a message's own nonce with its own payload was that message's doing: an equal one passes."""
    house.post("m:1")
    house.pump()
    tx_hash = house.node.send_as_stranger(0, to=CUSTODY, value=ETHER)
    house.mine_and_pump(3)
    assert house.message("m:1")["status"] == "conflict"
    assert ask(house, "release")[0] == "paused"
    assert recorded(house) == [(0, tx_hash, "m:1")]
    assert ask(house, "resume")[0] == "active"
    house.post("m:2")
    for _ in range(OLD_AFTER_BLOCKS):  # next in line since the stranger's block, and passed by
        house.pump()
        house.node.rpc("anvil_dropTransaction", house.message("m:2")["tx_hash"])
        house.node.mine()
    house.pump()
    assert len(house.message("m:2")["attempts"]) == 2
    found = house.run("m:2")
    assert (found["status"], found["nonce"]) == ("confirmed", 1)
    assert house.node.executions() == {ETHER: 2}


def test_release__nonces_raised_without_a_transaction__recorded_without_a_hash_in_several_calls(house: House) -> None:
    house.pump()
    house.node.mine(3)
    raised = NONCES_PER_CALL + 3
    house.node.rpc("anvil_setNonce", OPERATOR, hex(raised))
    house.mine_and_pump(2)
    assert ask(house, "release")[0] == "release_unfinished"
    assert operator(house)["state"] == "quarantined"
    assert len(recorded(house)) == NONCES_PER_CALL
    assert ask(house, "release")[0] == "paused"
    assert recorded(house) == [(nonce, None, None) for nonce in range(raised)]
    assert ask(house, "resume")[0] == "active"
    house.post("m:1")
    found = house.run("m:1")
    assert (found["status"], found["nonce"]) == ("confirmed", raised)


def copy_of(house: House, postgres: Server) -> str:
    """A backup: the URL of a copy of the house's database as it is now. One that is copied may have no session."""
    name = make_url(house.context.settings.database_url).database
    with psycopg2.connect(postgres.url("postgres")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    connection.close()
    return postgres.create("relayer", template=str(name))


def test_release__restored_backup__what_was_done_is_never_done_again(house: House, postgres: Server) -> None:
    house.pump()
    house.post("queued", value_wei="11")
    backup = copy_of(house, postgres)
    for number, value in enumerate((12, 13, 13, 14)):
        house.post(f"lost:{number}", value_wei=str(value))
    assert house.run("lost:3")["status"] == "confirmed"

    old = make_house(backup, house.node)
    past = {"deadline": "2020-01-01T00:00:00Z"}
    old.post("lost:0", value_wei="12", **past)
    old.post("lost:1", value_wei="13")
    old.pump()
    assert operator(old)["state"] == "active"  # seen once; and already nothing of it is signed, ended or taken back
    assert old.message("lost:0")["status"] == "queued"  # whether it has expired without effect is not known
    assert old.client.post("/v1/transactions/queued/cancel").get_json()["code"] == "signer_doubted"
    old.mine_and_pump()
    assert operator(old)["state"] == "quarantined"
    assert old.message("lost:0")["status"] == "queued"
    assert old.client.post("/v1/transactions/queued/cancel").get_json()["code"] == "signer_quarantined"
    assert ask(old, "release")[0] == "paused"
    old.post("lost:2", value_wei="13")
    for status in ("signed", "rejected", "expired", "cancelled"):
        with pytest.raises(DBAPIError, match="was done by"), transaction(old.context.sessions) as session:
            session.execute(text("UPDATE messages SET status = :status, nonce = 0"), {"status": status})
    assert old.client.post("/v1/transactions/queued/cancel").get_json()["code"] == "already_final"
    assert ask(old, "resume")[0] == "active"
    old.post("lost:3", value_wei="14")
    old.mine_and_pump(3)

    told = [old.message(name) for name in ("queued", "lost:0", "lost:1", "lost:2", "lost:3")]
    assert [(item["status"], item["nonce"], item["attempts"]) for item in told] == [("conflict", None, [])] * 5
    assert {item["reason"]["code"] for item in told} == {"done_by_foreign_transaction"}
    assert house.node.executions() == {11: 1, 12: 1, 13: 2, 14: 1}
    for item in told:
        made = house.message(item["message_id"])
        assert f"Transaction {made['tx_hash']} " in item["reason"]["detail"]
        assert f"block {made['block_number']}," in item["reason"]["detail"]

    old.post("new", value_wei="13")
    found = old.run("new")
    assert (found["status"], found["nonce"]) == ("confirmed", 5)
    assert house.node.executions() == {11: 1, 12: 1, 13: 3, 14: 1}


def test_release__foreign_transaction_reverted__an_equal_message_passes(house: House) -> None:
    """A revert had no effect: what asks for the same has not been done."""
    house.pump()
    house.node.rpc("anvil_setCode", CUSTODY, "0x5f5ffd")
    tx_hash = house.node.send_as_stranger(0, to=CUSTODY, value=7)
    house.mine_and_pump(2)
    assert ask(house, "release")[0] == "paused"
    assert recorded(house) == [(0, tx_hash, None)]
    assert ask(house, "resume")[0] == "active"
    house.node.rpc("anvil_setCode", CUSTODY, "0x")
    house.post("m:1", value_wei="7")
    assert house.run("m:1")["status"] == "confirmed"


@pytest.fixture
def chaos(node: Node) -> Iterator[Chaos]:
    with chaos_proxy(node.url) as proxy:
        yield proxy


def lies(method: str, result: Any, place: str = "") -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    def instead(item: dict[str, Any]) -> dict[str, Any] | None:
        lied = item["method"] == method and (not place or place in str(item["params"]))
        return {"result": result} if lied else None

    return instead


@pytest.mark.parametrize("liar", [1, 2])
def test_release__endpoints_disagree__refused_and_nothing_is_recorded(
    database_url: str, node: Node, chaos: Chaos, liar: int
) -> None:
    """Whichever of the two endpoints is wrong, and about whatever."""
    house = make_house(database_url, node, rpc_urls=(chaos.url, node.url) if liar == 1 else (node.url, chaos.url))
    house.pump()
    house.mine_and_pump(3)
    node.send_as_stranger(0)
    house.mine_and_pump(3)
    assert operator(house)["state"] == "quarantined"
    block = node.rpc(BLOCK, hex(4), True)
    for instead, code in (
        (lies(COUNT, "0x2", "latest"), "signer_not_at_rest"),
        (lies(COUNT, "0x2", "pending"), "signer_not_at_rest"),
        (lies(COUNT, "0x0", "blockHash"), "signer_not_at_rest"),
        (lies(BLOCK, None, "True"), "occupant_unknown"),
        (lies(BLOCK, {**block, "hash": "0x" + "ab" * 32}, "True"), "occupant_unknown"),
        (lies(BLOCK, {**block, "transactions": []}, "True"), "occupant_unknown"),
        (lies(RECEIPT, None), "occupant_unknown"),
    ):
        chaos.instead = instead
        assert ask(house, "release")[0] == code
        assert (operator(house)["state"], recorded(house)) == ("quarantined", [])
    chaos.instead = lies("", None)
    if liar == 1:  # it sends the search to a block in which the nonce was not used
        chaos.instead = lies(COUNT, "0x1", f"{OPERATOR}', '0x")
        assert ask(house, "release")[0] == "occupant_unknown"
        chaos.instead = lies("", None)
    else:
        chaos.fault("gateway", COUNT)
        assert ask(house, "release") == ("signer_not_at_rest", "1 endpoints answer, and 2 must agree.")
    assert ask(house, "release")[0] == "paused"
    assert len(recorded(house)) == 1


def test_release__another_one_is_quicker__undoes_nothing(database_url: str, node: Node, chaos: Chaos) -> None:
    """What was read before the nodes were asked is no longer so when it is to be stored."""
    house = make_house(database_url, node, rpc_urls=(chaos.url,))
    house.pump()
    node.send_as_stranger(0)
    house.mine_and_pump(2)
    quicker: list[str] = []

    def before(method: str) -> None:
        if method == RECEIPT and not quicker:
            quicker.append("begun")
            quicker.extend(ask(house, action)[0] for action in ("release", "resume"))

    chaos.before = before
    assert ask(house, "release")[0] == "not_quarantined"
    assert quicker == ["begun", "paused", "active"]
    assert operator(house)["state"] == "active"
    assert len(recorded(house)) == 1


def test_foreign_transactions__recorded_and_claimed__cannot_be_changed(house: House) -> None:
    house.post("m:1")
    house.pump()
    house.node.send_as_stranger(0, to=CUSTODY, value=ETHER)
    house.mine_and_pump(3)
    ask(house, "release")
    with transaction(house.context.sessions) as session:
        assert [row.message_id for row in session.scalars(select(ExternalMatch))] == ["m:1"]
    for statement in (
        "UPDATE foreign_transactions SET success = false",
        "DELETE FROM foreign_claims",
        "DELETE FROM foreign_transactions",
        "TRUNCATE foreign_claims",
    ):
        with pytest.raises(DBAPIError, match="kept for ever"), transaction(house.context.sessions) as session:
            session.execute(text(statement))


def test_quarantine__key_taken_out_of_the_settings__what_is_queued_waits(database_url: str, node: Node) -> None:
    """It may have been executed by a transaction that is not recorded yet, so no end may say that it was not."""
    house = make_house(database_url, node)
    house.pump()
    node.send_as_stranger(0)
    house.mine_and_pump(2)
    without = make_house(database_url, node, keyring=Keyring([parse_keys(CUSTODY_KEY)]))
    without.post("m:1", **{"from": OPERATOR})
    without.pump()
    found = without.message("m:1")
    assert (found["status"], found["reason"]["code"]) == ("queued", "signer_not_active")
