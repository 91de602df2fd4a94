"""A protocol on a real node, and the people around it: everybody signs with the node's own unlocked accounts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode as abi_decode
from web3 import Web3
from web3.logs import DISCARD
from web3.types import RPCEndpoint

from apps.common.wei import ETHER, GWEI
from apps.devnet.deployment import Deployment, artifact, balance, connect, deploy, read, send, set_balance, transact
from apps.devnet.oracle import Oracle
from tests.support.anvil import start_anvil

ZERO = "0x" + "00" * 20
PURSE_WEI = 10_000 * ETHER


@dataclass(frozen=True)
class Desk:
    """Lido on a node that mines every transaction at once."""

    rpc_url: str
    deployment: Deployment
    oracle: Oracle
    operator: str
    custody: str
    user: str

    @property
    def web3(self) -> Web3:
        return self.oracle.web3

    @property
    def lido(self) -> Any:
        return self.oracle.lido.functions

    @property
    def queue(self) -> Any:
        return self.oracle.queue.functions

    def rpc(self, method: str, *params: Any) -> Any:
        answer = self.web3.provider.make_request(RPCEndpoint(method), list(params))
        assert "error" not in answer, answer
        return answer["result"]

    def head(self) -> int:
        return int(self.web3.eth.block_number)

    def balance(self, address: str) -> int:
        return balance(self.web3, address)

    def steth(self, address: str) -> int:
        return int(read(self.web3, self.lido.balanceOf(address)))

    def shares(self, address: str) -> int:
        return int(read(self.web3, self.lido.sharesOf(address)))

    def do(self, call: Any, sender: str, value: int = 0) -> Any:
        """Send a contract call and return its receipt."""
        return transact(self.web3, call, sender, value)

    def in_one_block(self, *calls: tuple[Any, str, int]) -> list[Any]:
        """Mine (call, sender, value) each in one block, in this order; returns the receipts."""
        self.rpc("evm_setAutomine", False)
        sent = []
        for number, (call, sender, value) in enumerate(calls):
            fees = {"maxPriorityFeePerGas": (100 - number) * GWEI, "maxFeePerGas": 500 * GWEI}
            sent.append(call.transact({"from": sender, "value": value, "gas": 1_000_000, **fees}))
        self.rpc("evm_mine")
        self.rpc("evm_setAutomine", True)
        receipts = [self.web3.eth.get_transaction_receipt(tx_hash) for tx_hash in sent]
        assert [receipt["status"] for receipt in receipts] == [1] * len(calls)
        assert [receipt["transactionIndex"] for receipt in receipts] == list(range(len(calls)))
        return receipts

    def submit(self, sender: str, wei: int) -> Any:
        return self.do(self.lido.submit(ZERO), sender, wei)

    def approve(self, sender: str, wei: int) -> Any:
        return self.do(self.lido.approve(self.deployment.withdrawal_queue, wei), sender)

    def request(self, sender: str, amounts: Sequence[int]) -> list[int]:
        """Approve and request withdrawals owned by the sender; returns the NFT ids of the receipt."""
        self.approve(sender, sum(amounts))
        receipt = self.do(self.queue.requestWithdrawals(list(amounts), sender), sender)
        return [log["requestId"] for log in self.events("WithdrawalRequested", receipt)]

    def claim(self, sender: str, ids: Sequence[int], recipient: str) -> Any:
        last = read(self.web3, self.queue.getLastCheckpointIndex())
        hints = read(self.web3, self.queue.findCheckpointHints(list(ids), 1, last))
        return self.do(self.queue.claimWithdrawalsTo(list(ids), hints, recipient), sender)

    def status(self, number: int) -> Any:
        """(stETH, shares, owner, timestamp, finalized, claimed) of a withdrawal."""
        return self.queue.getWithdrawalStatus([number]).call()[0]

    def send(self, built: dict[str, Any]) -> Any:
        """Send a transaction that protocols built, as the operator, with the gas limit it came with."""
        request = {
            "from": built["from"],
            "to": built["to"],
            "data": built["data"],
            "value": hex(int(built["value_wei"])),
            "gas": hex(built["gas_limit"]),
        }
        receipt = send(self.web3, request)
        assert receipt["status"] == 1, receipt
        return receipt

    def events(self, name: str, receipt: Any) -> list[dict[str, Any]]:
        """Arguments of the events of a name in a receipt, of either contract, in order."""
        contract = self.oracle.queue if name.startswith("Withdrawal") else self.oracle.lido
        found: Any = contract.events[name]().process_receipt(receipt, errors=DISCARD)
        return [dict(item["args"]) for item in found]

    def names(self, receipt: Any) -> list[str]:
        """Names of all events in a receipt, in order; both contracts' ``Transfer`` read alike."""
        topics = {}
        for contract in ("Lido", "WithdrawalQueue"):
            for item in artifact(contract)["abi"]:
                if item["type"] == "event":
                    topics[_signature_hash(item)] = item["name"]
        return [topics[bytes(log["topics"][0])] for log in receipt["logs"]]

    def refusal(self, call: Any, sender: str, value: int = 0) -> str:
        """Why a call reverts: a revert string, or ``Name(arguments)`` of a custom error."""
        request = {"from": sender, "to": call.address, "data": call._encode_transaction_data(), "value": hex(value)}
        answer: Any = self.web3.provider.make_request(RPCEndpoint("eth_call"), [request, "latest"])
        assert "error" in answer, "the call did not revert"
        data = bytes.fromhex(answer["error"]["data"][2:])
        if data[:4].hex() == "08c379a0":
            return str(abi_decode(["string"], data[4:])[0])
        for item in artifact("WithdrawalQueue")["abi"]:
            if item["type"] == "error" and _signature_hash(item)[:4] == data[:4]:
                values = abi_decode([part["type"] for part in item["inputs"]], data[4:])
                return f"{item['name']}({', '.join(str(value) for value in values)})"
        raise AssertionError(f"an unknown revert: {data.hex()}")


@contextmanager
def start_desk(*, sole_holder: bool = False) -> Iterator[Desk]:
    """A node with the protocol deployed, and full purses. With `sole_holder` the operator owns every share there is."""
    with start_anvil() as anvil:
        accounts = list(connect(anvil.url).eth.accounts)
        operator, custody, user = accounts[0], accounts[1], accounts[2]
        if sole_holder:
            deployment = deploy(anvil.url, holder=operator, bootstrap_wei=ETHER, bootstrap_rewards_wei=0)
        else:
            deployment = deploy(anvil.url)
        oracle = Oracle(anvil.url, deployment)
        for account in (operator, custody, user):
            set_balance(oracle.web3, account, PURSE_WEI)
        yield Desk(anvil.url, deployment, oracle, operator, custody, user)


@contextmanager
def rolled_back(desk: Desk) -> Iterator[Desk]:
    """The desk as it was deployed, for one test."""
    snapshot = desk.rpc("evm_snapshot")
    try:
        yield desk
    finally:
        desk.rpc("evm_revert", snapshot)
        desk.rpc("evm_setTime", int(time.time()))  # which the snapshot does not hold


def signatures(contract: str, kind: str) -> dict[str, str]:
    """Selector or topic, in hex, by signature: of everything of a kind in a contract's ABI."""
    items = [item for item in artifact(contract)["abi"] if item["type"] == kind]
    return {_signature(item): _signature_hash(item).hex() for item in items}


def _signature(item: dict[str, Any]) -> str:
    return f"{item['name']}({','.join(map(_kind, item['inputs']))})"


def _kind(part: dict[str, Any]) -> str:
    if part["type"].startswith("tuple"):
        return f"({','.join(map(_kind, part['components']))}){part['type'].removeprefix('tuple')}"
    return str(part["type"])


def _signature_hash(item: dict[str, Any]) -> bytes:
    return bytes(Web3.keccak(text=_signature(item)))
