"""One look at the chain: everything a tick needs to know, read from one endpoint before anything is written.

Units: wei, block numbers. The horizon is the highest block that counts as irreversible: ``finalized`` on known public
chains, CONFIRMATIONS deep elsewhere (head - N + 1), or what MONEY_HORIZON says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from apps.common.ethereum import PUBLIC_CHAINS
from relayer.context import RelayerContext
from relayer.fees import Fees, choose_fees
from relayer.reverts import OUT_OF_GAS, UNKNOWN, Revert, decode_revert
from relayer.rpc import Endpoint, Request, RpcError, Unanswered

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OpenMessage:
    """A signed message that is not final, as read at the start of a tick. `attempts`: hashes, oldest first."""

    message_id: str
    seq: int
    address: str
    nonce: int
    status: str
    to: str
    data: bytes
    value_wei: int
    gas_limit: int
    max_fee_wei: int
    block_hash: str | None
    observed_block: int
    attempts: tuple[str, ...]


@dataclass(frozen=True)
class Receipt:
    """A receipt whose block was canonical when looked at."""

    tx_hash: str
    block_number: int
    block_hash: str
    success: bool
    gas_cost_wei: int
    gas_used: int


@dataclass(frozen=True)
class SignerView:
    """`settled` is the nonce at the horizon's very block hash: nonces below it are used for ever."""

    latest: int
    pending: int
    balance_wei: int
    settled: int


@dataclass(frozen=True)
class Occupant:
    """Who used a nonce that no attempt of ours has a receipt for; `tx_hash` None: no transaction of this sender did."""

    block_number: int
    tx_hash: str | None


@dataclass(frozen=True)
class Look:
    endpoint: Endpoint
    head: int
    horizon: int
    fees: Fees | None
    signers: dict[str, SignerView]
    receipts: dict[str, Receipt]
    reverts: dict[str, Revert]
    occupants: dict[str, Occupant]

    def receipt_of(self, message: OpenMessage) -> Receipt | None:
        return next((self.receipts[tx_hash] for tx_hash in message.attempts if tx_hash in self.receipts), None)


def look_at_chain(context: RelayerContext, messages: Sequence[OpenMessage]) -> Look:
    """Read everything from the first endpoint that answers it all; raises `ChainUnavailable`."""
    return context.endpoints.first(lambda endpoint: _look(endpoint, context, messages))


def simulate(endpoint: Endpoint, calls: Sequence[dict[str, Any]]) -> list[Any]:
    """``eth_call`` on the latest state: return data, or the node's `RpcError`, in order. Raises `Unanswered`."""
    return endpoint.batch([("eth_call", [call, "latest"]) for call in calls])


def call_fields(sender: str, to: str, data: bytes, value_wei: int, gas_limit: int) -> dict[str, Any]:
    return {"from": sender, "to": to, "data": "0x" + data.hex(), "value": hex(value_wei), "gas": hex(gas_limit)}


def _look(endpoint: Endpoint, context: RelayerContext, messages: Sequence[OpenMessage]) -> Look:
    settings = context.settings
    chain_id, latest = _all(endpoint.batch([("eth_chainId", []), ("eth_getBlockByNumber", ["latest", False])]))
    if int(chain_id, 16) != settings.chain_id:
        raise Unanswered("another chain")
    head = int(latest["number"], 16)
    tag = _horizon_tag(settings.chain_id, settings.confirmations, settings.money_horizon, head)
    # A key taken out of the settings may still have messages under way.
    addresses = list(dict.fromkeys([*settings.keyring.addresses, *(message.address for message in messages)]))
    hashes = [tx_hash for message in messages for tx_hash in message.attempts]
    requests: list[Request] = [
        ("eth_getBlockByNumber", [tag, False]),
        ("eth_feeHistory", ["0xa", "latest", [50]]),
        ("eth_maxPriorityFeePerGas", []),
    ]
    for address in addresses:
        requests += [
            ("eth_getTransactionCount", [address, "latest"]),
            ("eth_getTransactionCount", [address, "pending"]),
            ("eth_getBalance", [address, "latest"]),
        ]
    requests += [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes]
    results = endpoint.batch(requests)
    (horizon_block,) = _all(results[:1])
    fees = choose_fees(latest.get("baseFeePerGas"), results[1], results[2], settings.fallback_tip_wei)
    counts = [int(value, 16) for value in _all(results[3 : 3 + 3 * len(addresses)])]
    found = [value for value in _all(results[3 + 3 * len(addresses) :]) if value is not None]
    numbers = sorted({value["blockNumber"] for value in found if value.get("blockNumber")})
    pinned = endpoint.batch(
        [("eth_getTransactionCount", [address, {"blockHash": horizon_block["hash"]}]) for address in addresses]
        + [("eth_getBlockByNumber", [number, False]) for number in numbers]
    )
    settled = [int(value, 16) for value in _all(pinned[: len(addresses)])]
    canonical = {block["hash"] for block in _all(pinned[len(addresses) :]) if block is not None}
    receipts = {value["transactionHash"]: _receipt(value) for value in found if value.get("blockHash") in canonical}
    look = Look(
        endpoint=endpoint,
        head=head,
        horizon=int(horizon_block["number"], 16),
        fees=fees,
        signers={
            address: SignerView(counts[3 * i], counts[3 * i + 1], counts[3 * i + 2], settled[i])
            for i, address in enumerate(addresses)
        },
        receipts=receipts,
        reverts={},
        occupants={},
    )
    for message in messages:
        _explain(look, message)
    return look


def _explain(look: Look, message: OpenMessage) -> None:
    """Ask the few questions that only an unusual message raises: why it reverted, or who took its nonce."""
    receipt = look.receipt_of(message)
    view = look.signers.get(message.address)
    if receipt is not None and not receipt.success and receipt.block_number <= look.horizon:
        look.reverts[receipt.tx_hash] = _why_reverted(look.endpoint, message, receipt)
    if receipt is None and view is not None and view.settled > message.nonce:
        try:
            look.occupants[message.message_id] = _find_occupant(look, message)
        except (RpcError, Unanswered, KeyError, TypeError) as error:
            log.warning("occupant_not_found", message_id=message.message_id, kind=type(error).__name__)


def _why_reverted(endpoint: Endpoint, message: OpenMessage, receipt: Receipt) -> Revert:
    """Best effort: the same call on the state before its block, then after it: the cause may be in that block."""
    call = call_fields(message.address, message.to, message.data, message.value_wei, message.gas_limit)
    for number in (receipt.block_number - 1, receipt.block_number):
        try:
            endpoint.call("eth_call", [call, hex(number)])
        except RpcError as error:
            if error.data:
                return decode_revert(error.data)
        except Unanswered:
            break
    return OUT_OF_GAS if receipt.gas_used >= message.gas_limit else UNKNOWN


def _find_occupant(look: Look, message: OpenMessage) -> Occupant:
    """Binary search for the block in which the nonce was used, from the block at which it certainly was not."""
    low, high = message.observed_block, look.horizon
    while high - low > 1:
        middle = (low + high) // 2
        count = int(look.endpoint.call("eth_getTransactionCount", [message.address, hex(middle)]), 16)
        low, high = (low, middle) if count > message.nonce else (middle, high)
    block = look.endpoint.call("eth_getBlockByNumber", [hex(high), True])
    for transaction in block["transactions"]:
        if transaction["from"].lower() == message.address.lower() and int(transaction["nonce"], 16) == message.nonce:
            return Occupant(high, transaction["hash"])
    return Occupant(high, None)


def _horizon_tag(chain_id: int, confirmations: int, mode: str | None, head: int) -> str:
    chosen = mode or ("finalized" if chain_id in PUBLIC_CHAINS else "depth")
    return "finalized" if chosen == "finalized" else hex(max(0, head - confirmations + 1))


def _receipt(value: dict[str, Any]) -> Receipt:
    gas_used = int(value["gasUsed"], 16)
    return Receipt(
        tx_hash=value["transactionHash"],
        block_number=int(value["blockNumber"], 16),
        block_hash=value["blockHash"],
        success=int(value["status"], 16) == 1,
        gas_cost_wei=gas_used * int(value["effectiveGasPrice"], 16),
        gas_used=gas_used,
    )


def _all(results: list[Any]) -> list[Any]:
    """A look with a hole in it is no look: the first error answer is raised."""
    for result in results:
        if isinstance(result, RpcError):
            raise result
    return results
