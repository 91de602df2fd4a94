"""Signers behind one protocol: keystore files and a Web3Signer; what a signer returns is believed only once decoded."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from sqlalchemy import update

from apps.common.database import transaction
from relayer.settings import load_settings
from relayer.signing.signers import Web3Signer
from relayer.signing.transactions import Keyring
from relayer.store.models import Message, Signer
from tests.support.relayer import CHAIN_ID, CUSTODY, OPERATOR, OPERATOR_KEY, STRANGER, House, Node, make_house
from tests.support.workers import worker_environment


@contextmanager
def web3signer(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[str]:
    """A small server that speaks Web3Signer's ``eth_signTransaction``; `change` makes it sign something else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (call,) = asked["params"]
            assert asked["method"] == "eth_signTransaction"
            fields = {name: value for name, value in call.items() if name != "from"}
            signed = Account.sign_transaction(change({**fields, "type": 2, "chainId": CHAIN_ID}), "0x" + OPERATOR_KEY)
            body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": signed.raw_transaction.to_0x_hex()})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def house_with(database_url: str, node: Node, url: str) -> House:
    return make_house(database_url, node, keyring=Keyring([Web3Signer(url, [OPERATOR])]))


def test_web3signer__signs_what_was_asked__confirmed(database_url: str, node: Node) -> None:
    with web3signer(lambda fields: fields) as url:
        house = house_with(database_url, node, url)
        house.post("m:1")
        assert house.run("m:1")["status"] == "confirmed"
        house.post("m:2", value_wei="5")
        house.pump()
        house.client.post("/v1/transactions/m:2/speed-up")
        house.pump()
        assert len(house.message("m:2")["attempts"]) == 2
    assert len(node.transactions_from(OPERATOR)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"to": STRANGER},
        {"value": hex(10**21)},
        {"nonce": "0x1"},
        {"chainId": 1},
        {"data": "0x01", "gas": hex(50_000)},
        {"maxFeePerGas": hex(10**15)},
        {"accessList": [{"address": STRANGER, "storageKeys": []}]},
    ],
)
def test_web3signer__signs_something_else__nothing_is_stored_or_sent(
    database_url: str, node: Node, change: dict[str, Any]
) -> None:
    with web3signer(lambda fields: {**fields, **change}) as url:
        house = house_with(database_url, node, url)
        house.post("m:1")
        house.pump()
        found = house.message("m:1")
        assert (found["status"], found["nonce"], found["attempts"]) == ("queued", None, [])
        assert found["reason"]["code"] == "signer_failed"
    with web3signer(lambda fields: fields) as url:
        assert house_with(database_url, node, url).run("m:1")["status"] == "confirmed"


def test_assign__message_cancelled_while_the_signer_signs__what_was_signed_is_thrown_away(
    database_url: str, node: Node
) -> None:
    """And what stands behind it keeps no gap: its signature was for the next nonce but one."""

    def meddle(fields: dict[str, Any]) -> dict[str, Any]:
        if int(fields["nonce"], 16) == 1:
            assert house.client.post("/v1/transactions/m:1/cancel").get_json()["status"] == "cancelled"
        return fields

    with web3signer(meddle) as url:
        house = house_with(database_url, node, url)
        for name, value in (("m:1", "11"), ("m:2", "22")):
            house.post(name, value_wei=value)
        house.pump()
        assert [house.message(name)["nonce"] for name in ("m:1", "m:2")] == [None, None]
        assert house.run("m:2")["nonce"] == 0
    assert node.executions() == {22: 1}


def test_assign__nonces_given_by_another_while_the_signer_signs__what_was_signed_is_thrown_away(
    database_url: str, node: Node
) -> None:
    def meddle(fields: dict[str, Any]) -> dict[str, Any]:
        with transaction(house.context.sessions) as session:
            session.execute(update(Signer).values(next_nonce=int(fields["nonce"], 16) + 1))
        return fields

    with web3signer(meddle) as url:
        house = house_with(database_url, node, url)
        house.post("m:1")
        house.pump()
        found = house.message("m:1")
    assert (found["status"], found["nonce"], found["attempts"]) == ("queued", None, [])


def test_web3signer__not_there__waits_without_a_nonce(database_url: str, node: Node) -> None:
    house = house_with(database_url, node, "http://127.0.0.1:1")
    house.post("m:1")
    house.pump()
    assert house.message("m:1")["reason"]["code"] == "signer_failed"


def settings_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in {
        **worker_environment("postgres://a:b@127.0.0.1:1/c", ("http://127.0.0.1:1",)),
        **changes,
    }.items():
        monkeypatch.setenv(name, value)


def test_message__put_into_the_table_by_hand__held_against_the_policy(house: House) -> None:
    """Who can write the tables can ask for what a caller can ask for, and for nothing else."""
    house.post("m:pattern")
    with transaction(house.context.sessions) as session:
        pattern = session.get_one(Message, "m:pattern")
        copied = ("request", "purpose", "status", "chain_id", "from_address", "data", "gas_limit")
        values = {name: getattr(pattern, name) for name in copied}
        session.add(Message(message_id="m:forged", to_address=STRANGER, value_wei=5, **values))
    house.run("m:pattern")
    found = house.message("m:forged")
    assert (found["status"], found["nonce"], found["reason"]["code"]) == ("rejected", None, "destination_not_allowed")
    assert [item["to"] for item in house.node.transactions_from(OPERATOR)] == [CUSTODY.lower()]


def test_keystore__encrypted_file__signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    path = tmp_path / "operator.json"
    path.write_text(
        json.dumps(Account.encrypt(bytes.fromhex(OPERATOR_KEY), "correct horse", kdf="pbkdf2", iterations=1_000))
    )
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    settings_environment(
        tmp_path, monkeypatch, SIGNER_KEYS="", KEYSTORE_FILES=str(path), KEYSTORE_PASSWORD_FILE=str(secret)
    )
    keyring = load_settings().keyring
    assert keyring.addresses == (OPERATOR,)
    encrypted = make_house(str(house.context.settings.database_url), house.node, keyring=keyring)
    encrypted.post("m:1")
    assert encrypted.run("m:1")["status"] == "confirmed"


def test_web3signer__in_the_settings__its_addresses_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_environment(
        tmp_path,
        monkeypatch,
        SIGNER_KEYS="",
        WEB3SIGNER_URL="http://user:word@127.0.0.1:9000",
        WEB3SIGNER_ADDRESSES=f"{OPERATOR.lower()},{CUSTODY}",
    )
    settings = load_settings()
    assert settings.keyring.addresses == (OPERATOR, CUSTODY)
    assert "word" not in f"{settings!r}{settings.keyring!r}"
