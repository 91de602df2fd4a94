"""One look at the chain: everything a tick needs to know, read from one endpoint before anything is written.

Units: wei, block numbers. The horizon is the highest block that counts as irreversible: ``finalized`` on known public
chains, CONFIRMATIONS deep elsewhere (head - N + 1), or what MONEY_HORIZON says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.ethereum.horizon import horizon_tag
from apps.ethereum.jsonrpc import Endpoint, Request, RpcError, Unanswered
from relayer.context import RelayerContext
from relayer.lifecycle.fees import PERCENTILES, Market, market


@dataclass(frozen=True)
class OpenMessage:
    """A signed message that is not final, as read at the start of a tick.

    `attempts`: hashes, oldest first. `max_fee_wei`: the highest of theirs. `block_number`, `block_hash`: where it was
    last seen mined.
    """

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
    block_number: int | None
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
class Look:
    """`standing`: messages seen mined before whose block is still in the chain, above the horizon."""

    endpoint: Endpoint
    head: int
    horizon: int
    horizon_hash: str
    market: Market | None
    signers: dict[str, SignerView]
    receipts: dict[str, Receipt] = field(default_factory=dict)
    standing: frozenset[str] = frozenset()

    def receipt_of(self, message: OpenMessage) -> Receipt | None:
        return next((self.receipts[tx_hash] for tx_hash in message.attempts if tx_hash in self.receipts), None)

    def is_mined(self, message: OpenMessage) -> bool:
        return message.message_id in self.standing or self.receipt_of(message) is not None


def look_at_chain(context: RelayerContext, messages: Sequence[OpenMessage]) -> Look:
    """Read everything from the first endpoint that answers it all; raises `ChainUnavailable`."""
    return context.endpoints.first(lambda endpoint: _look(endpoint, context, messages))


def simulate(endpoint: Endpoint, calls: Sequence[dict[str, Any]], method: str = "eth_call") -> list[Any]:
    """``eth_call`` or ``eth_estimateGas`` on the latest state: the result, or the node's `RpcError`, in order.

    Raises `Unanswered`.
    """
    return endpoint.batch([(method, [call, "latest"]) for call in calls])


def call_fields(sender: str, to: str, data: bytes, value_wei: int, gas_limit: int) -> dict[str, Any]:
    return {"from": sender, "to": to, "data": "0x" + data.hex(), "value": hex(value_wei), "gas": hex(gas_limit)}


def read_receipt(value: Any) -> Receipt | None:
    """A node's receipt; None where it has none, or one that belongs to no block."""
    if not isinstance(value, dict) or not value.get("blockHash"):
        return None
    gas_used = int(value["gasUsed"], 16)
    return Receipt(
        tx_hash=value["transactionHash"],
        block_number=int(value["blockNumber"], 16),
        block_hash=value["blockHash"],
        success=int(value["status"], 16) == 1,
        gas_cost_wei=gas_used * int(value["effectiveGasPrice"], 16),
        gas_used=gas_used,
    )


def read_market(endpoint: Endpoint, fallback_tip_wei: int) -> Market | None:
    """What gas costs now; raises `Unanswered` or `RpcError`."""
    latest, history, proposed = endpoint.batch([("eth_getBlockByNumber", ["latest", False]), *_FEES])
    return market(answered([latest])[0], history, proposed, fallback_tip_wei)


def answered(results: list[Any]) -> list[Any]:
    """A look with a hole in it is no look: the first error answer is raised."""
    for result in results:
        if isinstance(result, RpcError):
            raise result
    return results


_FEES: tuple[Request, Request] = (
    ("eth_feeHistory", ["0xa", "latest", list(PERCENTILES)]),
    ("eth_maxPriorityFeePerGas", []),
)


def _look(endpoint: Endpoint, context: RelayerContext, messages: Sequence[OpenMessage]) -> Look:
    try:
        return _read(endpoint, context, messages)
    except (KeyError, TypeError, ValueError) as error:  # an answer of another shape is no answer
        raise Unanswered(f"malformed answer ({type(error).__name__})") from None


def _read(endpoint: Endpoint, context: RelayerContext, messages: Sequence[OpenMessage]) -> Look:
    settings = context.settings
    chain_id, latest = answered(endpoint.batch([("eth_chainId", []), ("eth_getBlockByNumber", ["latest", False])]))
    if int(chain_id, 16) != settings.chain_id:
        raise Unanswered("another chain")
    head = int(latest["number"], 16)
    tag = horizon_tag(settings.chain_id, settings.confirmations, settings.money_horizon, head)
    # A key taken out of the settings may still have messages under way.
    addresses = list(dict.fromkeys([*settings.keyring.addresses, *(message.address for message in messages)]))
    known = sorted({message.block_number for message in messages if message.block_number is not None})
    results = endpoint.batch(
        [*_FEES, ("eth_getBlockByNumber", [tag, False])]
        + [(method, params) for address in addresses for method, params in _of_signer(address)]
        + [_block(number) for number in known]
    )
    horizon_block, *rest = answered(results[2:])
    counts = [int(value, 16) for value in rest[: 3 * len(addresses)]]
    hashes = {number: block and block["hash"] for number, block in zip(known, rest[3 * len(addresses) :], strict=True)}
    horizon = int(horizon_block["number"], 16)
    latest_nonces = dict(zip(addresses, counts[::3], strict=True))
    standing = frozenset(
        message.message_id
        for message in messages
        if message.block_number is not None
        and message.block_number > horizon
        and hashes[message.block_number] == message.block_hash
    )
    # What has a nonce that is not used yet can have no receipt, so thousands in flight cost no question.
    asked = [
        tx_hash
        for message in messages
        if message.message_id not in standing
        and (message.block_number is not None or message.nonce < latest_nonces[message.address])
        for tx_hash in message.attempts
    ]
    settled, receipts = _pinned(endpoint, horizon_block["hash"], addresses, asked)
    return Look(
        endpoint=endpoint,
        head=head,
        horizon=horizon,
        horizon_hash=horizon_block["hash"],
        market=market(latest, results[0], results[1], settings.fallback_tip_wei),
        signers={
            address: SignerView(counts[3 * i], counts[3 * i + 1], counts[3 * i + 2], settled[i])
            for i, address in enumerate(addresses)
        },
        receipts=receipts,
        standing=standing,
    )


def _pinned(
    endpoint: Endpoint, horizon_hash: str, addresses: Sequence[str], asked: Sequence[str]
) -> tuple[list[int], dict[str, Receipt]]:
    """Nonces at the horizon's very block, and those receipts whose block the same endpoint holds for canonical."""
    requests: list[Request] = [
        ("eth_getTransactionCount", [address, {"blockHash": horizon_hash}]) for address in addresses
    ]
    requests += [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in asked]
    results = answered(endpoint.batch(requests))
    settled = [int(value, 16) for value in results[: len(addresses)]]
    found = [receipt for receipt in map(read_receipt, results[len(addresses) :]) if receipt is not None]
    numbers = sorted({receipt.block_number for receipt in found})
    blocks = answered(endpoint.batch([_block(number) for number in numbers]))
    canonical = {block["hash"] for block in blocks if block is not None}
    wanted = set(asked)
    return settled, {
        receipt.tx_hash: receipt for receipt in found if receipt.block_hash in canonical and receipt.tx_hash in wanted
    }


def _of_signer(address: str) -> tuple[Request, Request, Request]:
    return (
        ("eth_getTransactionCount", [address, "latest"]),
        ("eth_getTransactionCount", [address, "pending"]),
        ("eth_getBalance", [address, "latest"]),
    )


def _block(number: int) -> Request:
    return ("eth_getBlockByNumber", [hex(number), False])
