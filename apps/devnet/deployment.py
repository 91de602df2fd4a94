"""Deploy the devnet's contracts to a development node."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from eth_utils.abi import get_abi_output_types
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.exceptions import TransactionNotFound
from web3.types import RPCEndpoint, TxReceipt

from apps.common.wei import ETHER

ARTIFACTS = Path(__file__).parent / "artifacts"
RICH_WEI = 10_000_000 * ETHER
BOOTSTRAP_WEI = 100_000 * ETHER
# The share rate starts above one and is no round number, so that rounding dust happens from the first stake on.
BOOTSTRAP_REWARDS_WEI = 3_141_592_653_589_793_238_462
STAKE_LIMIT_WEI = 150_000 * ETHER
STAKE_LIMIT_GROWTH_BLOCKS = 6_400
# Above what a call is estimated to need: a block later it may need a little more.
SPARE_GAS = 100_000
MINED_WITHIN_SEC = 60.0
# A node that mines at once has done so within milliseconds; another takes a second.
FIRST_LOOK_SEC, LOOK_SEC = 0.002, 0.05


@dataclass(frozen=True)
class Deployment:
    """Addresses of one deployment. `owner` acts as oracle and governance; `stranger`, another user, holds the bootstrap stake."""

    chain_id: int
    steth: str
    withdrawal_queue: str
    locator: str
    owner: str
    stranger: str

    def to_dict(self) -> dict[str, int | str]:
        """The JSON by which other processes find the deployment."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Deployment":
        """From what `to_dict` made."""
        return cls(**values)


def connect(rpc_url: str) -> Web3:
    return Web3(HTTPProvider(rpc_url, request_kwargs={"timeout": 30}, exception_retry_configuration=None))


def artifact(name: str) -> dict[str, Any]:  # a compiler's output, of which only a part is used
    """ABI and bytecode of a contract, as committed."""
    loaded: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return loaded


def contract_at(web3: Web3, name: str, address: str) -> Contract:
    return web3.eth.contract(address=Web3.to_checksum_address(address), abi=artifact(name)["abi"])


def balance(web3: Web3, address: str) -> int:
    """Wei that an address holds as of the latest block."""
    return int(web3.provider.make_request(RPCEndpoint("eth_getBalance"), [address, "latest"])["result"], 16)


def set_balance(web3: Web3, address: str, wei: int) -> None:
    """Give an address exactly this much ETH; development nodes only."""
    web3.provider.make_request(RPCEndpoint("anvil_setBalance"), [address, hex(wei)])


def deploy(
    rpc_url: str,
    *,
    holder: str | None = None,
    bootstrap_wei: int = BOOTSTRAP_WEI,
    bootstrap_rewards_wei: int = BOOTSTRAP_REWARDS_WEI,
) -> Deployment:
    """Deploy Lido, the withdrawal queue and the locator from the node's last unlocked accounts.

    The first accounts stay untouched, for callers that need users. A second call makes a second protocol at new addresses.
    `holder` gets the bootstrap stake and the protocol's fees; the stranger where it is None.
    """
    web3 = connect(rpc_url)
    accounts = list(web3.eth.accounts)
    owner, stranger = accounts[-1], accounts[-2]
    set_balance(web3, owner, RICH_WEI)
    lido = _create(web3, "Lido", owner, bootstrap_wei, holder or stranger, bootstrap_rewards_wei)
    queue = _create(web3, "WithdrawalQueue", owner, 0, lido)
    locator = _create(web3, "LidoLocator", owner, 0, lido, queue)
    steth = contract_at(web3, "Lido", lido)
    for call in (
        steth.functions.initialize(queue, locator),
        steth.functions.setStakingLimit(STAKE_LIMIT_WEI, STAKE_LIMIT_GROWTH_BLOCKS),
    ):
        _mine(web3, call.transact({"from": owner}))
    return Deployment(web3.eth.chain_id, lido, queue, locator, owner, stranger)


def read(web3: Web3, call: Any) -> Any:
    """What a contract call answers as of the latest block; raises when it reverts. web3's own way takes five times as long."""
    request = {"to": call.address, "data": call._encode_transaction_data()}
    answer = web3.provider.make_request(RPCEndpoint("eth_call"), [request, "latest"])
    if "error" in answer:
        return call.call()  # raises with the reason
    found = web3.codec.decode(get_abi_output_types(call.abi), HexBytes(answer["result"]))
    return found[0] if len(found) == 1 else found


def transact(web3: Web3, call: Any, sender: str, value: int = 0) -> Any:
    """Send a contract call from an unlocked account and wait until it is mined; raises when it reverts."""
    request = {"from": sender, "to": call.address, "data": call._encode_transaction_data(), "value": hex(value)}
    estimate = web3.provider.make_request(RPCEndpoint("eth_estimateGas"), [request])
    if "error" in estimate:
        call.estimate_gas({"from": sender, "value": value})  # raises with the reason
    gas = int(estimate["result"], 16) + SPARE_GAS
    receipt = send(web3, {**request, "gas": hex(gas)})
    if receipt["status"] != 1:
        raise RuntimeError(f"{call.fn_name} reverted on chain")
    return receipt


# Anvil gives two transactions that one account sends at the same moment the same nonce, and refuses one of them.
_one_at_a_time = Lock()


def send(web3: Web3, request: Mapping[str, str]) -> Any:
    """Send a transaction from an unlocked account and return its receipt once it is mined, whatever became of it.

    The node fills in fees and nonce. web3 would ask for all that they are made of first, and take four times as long.
    """
    with _one_at_a_time:
        answer = web3.provider.make_request(RPCEndpoint("eth_sendTransaction"), [request])
    if "error" in answer:
        raise RuntimeError(f"the node refuses a transaction: {answer['error']}")
    tx_hash = HexBytes(answer["result"])
    deadline, pause = time.monotonic() + MINED_WITHIN_SEC, FIRST_LOOK_SEC
    while True:
        try:
            return web3.eth.get_transaction_receipt(tx_hash)
        except TransactionNotFound:
            if time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LOOK_SEC)


def _create(web3: Web3, name: str, sender: str, value: int, *arguments: Any) -> str:
    found = artifact(name)
    factory = web3.eth.contract(abi=found["abi"], bytecode=found["bytecode"])
    tx_hash = factory.constructor(*arguments).transact({"from": sender, "value": value})
    receipt = _mine(web3, tx_hash)
    if receipt["contractAddress"] is None:
        raise RuntimeError(f"{name} could not be deployed")
    return str(receipt["contractAddress"])


def _mine(web3: Web3, tx_hash: HexBytes) -> TxReceipt:
    """The receipt, from a block made for it where the node makes none before its next second; raises when it reverted."""
    try:
        receipt = web3.eth.get_transaction_receipt(tx_hash)
    except TransactionNotFound:
        web3.provider.make_request(RPCEndpoint("evm_mine"), [])
        receipt = web3.eth.wait_for_transaction_receipt(tx_hash, timeout=60, poll_latency=0.05)
    if receipt["status"] != 1:
        raise RuntimeError(f"{Web3.to_hex(tx_hash)} reverted on chain")
    return receipt
