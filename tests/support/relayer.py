"""A relayer on a real node and a real database, whose blocks the test mines itself."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from eth_account import Account
from flask.testing import FlaskClient

from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from relayer import create_app
from relayer.context import RelayerContext
from relayer.lifecycle.pump import Tick, pump_once
from relayer.settings import RelayerSettings
from relayer.signing.signers import parse_keys
from relayer.signing.transactions import Keyring

# The node's own well-known test keys.
OPERATOR_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
CUSTODY_KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
OPERATOR = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
CUSTODY = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STRANGER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
SUBMIT_DATA = "0xa1903eab" + "0" * 64
CHAIN_ID = 31337
ROOT = Path(__file__).parents[2]


class Node:
    """A development node that mines when told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()

    def rpc(self, method: str, *params: Any) -> Any:
        (result,) = self._batch((method, *params))
        return result

    def _batch(self, *calls: tuple[Any, ...]) -> list[Any]:
        """The results of (method, parameters...) each, in one request."""
        body = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, *params) in enumerate(calls)
        ]
        answers = self._session.post(self.url, json=body, timeout=10).json()
        for answer in answers:
            if "error" in answer:
                raise AssertionError(f"{calls[answer['id']][0]}: {answer['error']}")
        return [answer["result"] for answer in sorted(answers, key=lambda answer: answer["id"])]

    def mine_by_hand(self) -> None:
        self.rpc("evm_setAutomine", False)
        self.rpc("evm_setIntervalMining", 0)

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.rpc("evm_mine")

    def head(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    def balance(self, address: str) -> int:
        return int(self.rpc("eth_getBalance", address, "latest"), 16)

    def transactions_from(self, address: str) -> list[dict[str, Any]]:
        """Every transaction of a sender in the canonical chain: what really happened, whatever anybody reports."""
        blocks = self._batch(*(("eth_getBlockByNumber", hex(number), True) for number in range(self.head() + 1)))
        return [item for block in blocks for item in block["transactions"] if item["from"].lower() == address.lower()]

    def executions(self) -> Counter[int]:
        """How often each value was sent from operator to custody in the canonical chain."""
        return Counter(
            int(item["value"], 16)
            for item in self.transactions_from(OPERATOR)
            if (item["to"] or "").lower() == CUSTODY.lower()
        )

    def send_as_stranger(self, nonce: int, *, to: str = STRANGER, value: int = 1) -> str:
        """Use the operator's key outside the relayer, at a price that wins; returns the hash."""
        fields = {
            "type": 2, "chainId": CHAIN_ID, "nonce": nonce, "to": to, "value": value, "gas": 21_000, "data": "0x",
            "maxFeePerGas": 10**13, "maxPriorityFeePerGas": 10**12,
        }  # fmt: skip
        signed = Account.sign_transaction(fields, "0x" + OPERATOR_KEY)
        return str(self.rpc("eth_sendRawTransaction", signed.raw_transaction.to_0x_hex()))

    def base_fee(self, wei: int) -> None:
        """Mine a block with this base fee; from it the next ones fall by an eighth."""
        self.rpc("anvil_setNextBlockBaseFeePerGas", hex(wei))
        self.mine()


@dataclass
class House:
    node: Node
    context: RelayerContext
    client: FlaskClient

    def post(self, message_id: str, **changes: Any) -> Any:
        """Accept a message; by default one wei-round transfer operator -> custody."""
        body = {"message_id": message_id, "to": CUSTODY, "data": "0x", "value_wei": str(ETHER), "gas_limit": 21_000}
        return self.client.post("/v1/transactions", json={**body, **changes})

    def message(self, message_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/v1/transactions/{message_id}")
        assert answer.status_code == 200, answer.get_json()
        found: dict[str, Any] = answer.get_json()
        return found

    def pump(self) -> Tick:
        return pump_once(self.context)

    def mine_and_pump(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.node.mine()
            self.pump()

    def doubt_and_stop(self) -> None:
        """Look often enough, at later blocks, for a key that somebody else used to be quarantined."""
        self.pump()
        self.mine_and_pump(2)

    def run(self, message_id: str, ticks: int = 6) -> dict[str, Any]:
        """Pump and mine until the message is final."""
        for _ in range(ticks):
            self.pump()
            found = self.message(message_id)
            if found["status"] not in {"queued", "signed", "broadcast", "mined"}:
                return found
            self.node.mine()
        return self.message(message_id)


def make_house(database_url: str, node: Node, **changes: Any) -> House:
    settings = make_settings(database_url, changes.pop("rpc_urls", (node.url,)), **changes)
    app = create_app(settings)
    return House(node, app.extensions["service"].context, app.test_client())


def make_settings(database_url: str, rpc_urls: tuple[str, ...], **changes: Any) -> RelayerSettings:
    values: dict[str, Any] = {
        "app_env": "test",
        "http_port": 8082,
        "database_url": normalise_database_url(database_url),
        "broker_url": "redis://127.0.0.1:1/0",  # nobody listens: hints are lost, and nothing may depend on them
        "rpc_urls": rpc_urls,
        "chain_id": CHAIN_ID,
        "keyring": Keyring([parse_keys(f"{OPERATOR_KEY},{CUSTODY_KEY}")]),
        "api_keys": (),
        "confirmations": 2,
        "money_horizon": None,
        "gas_limit": 1_000_000,
        "fallback_tip_wei": 10**9,
        "custody_address": CUSTODY,
        "operator_address": OPERATOR,
        "steth_address": None,
        "queue_address": None,
        "max_value_per_tx_wei": 10_000 * ETHER,
        "max_value_per_day_wei": 100_000 * ETHER,
        "max_payout_per_tx_wei": 10_000 * ETHER,
        "max_payout_per_day_wei": 100_000 * ETHER,
        "max_gas_per_tx_wei": ETHER,
        "max_gas_per_day_wei": 20 * ETHER,
        "max_in_flight": 64,
        "settle_quorum": 0,
    }
    return RelayerSettings(**{**values, **changes})
