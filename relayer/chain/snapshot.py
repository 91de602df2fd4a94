"""The chain as one endpoint shows it at one moment: all that a tick needs to know, read before anything is written.

Units: wei, block numbers. The horizon is the highest block that counts as irreversible: ``finalized`` on known public
chains, CONFIRMATIONS deep elsewhere (head - N + 1), or what MONEY_HORIZON says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.ethereum.horizon import horizon_tag
from apps.ethereum.jsonrpc import Endpoint, Request, RpcError, Unanswered
from relayer.context import RelayerContext
from relayer.lifecycle.fees import PERCENTILES, Market, market
from relayer.store.messages import OpenMessage

# What a node answered, as it came: its fields are the node's word, so reading one may raise.
NodeObject = Mapping[str, Any]


@dataclass(frozen=True)
class Receipt:
    """A receipt whose block was canonical when it was read."""

    tx_hash: str
    block_number: int
    block_hash: str
    success: bool
    gas_cost_wei: int
    gas_used: int


@dataclass(frozen=True)
class SignerView:
    """`settled` is the nonce at the horizon's very block hash: nonces below it can never be used again."""

    latest: int
    pending: int
    balance_wei: int
    settled: int


@dataclass(frozen=True)
class ChainSnapshot:
    """One consistent reading of the chain, from `endpoint`; `head` and `horizon` are block numbers.

    `unfinalized_mined`: ids of messages already seen mined, in a canonical block above the horizon. Their receipts are not
    read again.
    """

    endpoint: Endpoint
    head: int
    horizon: int
    horizon_hash: str
    market: Market | None
    signers: dict[str, SignerView]
    receipts: dict[str, Receipt] = field(default_factory=dict)
    unfinalized_mined: frozenset[str] = frozenset()

    def receipt_of(self, message: OpenMessage) -> Receipt | None:
        return next((self.receipts[tx_hash] for tx_hash in message.attempts if tx_hash in self.receipts), None)

    def is_mined(self, message: OpenMessage) -> bool:
        return message.message_id in self.unfinalized_mined or self.receipt_of(message) is not None


def read_chain(context: RelayerContext, messages: Sequence[OpenMessage]) -> ChainSnapshot:
    """Read everything from the first endpoint that answers it all; raises `ChainUnavailable`."""
    return context.endpoints.first(lambda endpoint: _read_or_unanswered(endpoint, context, messages))


def simulate(endpoint: Endpoint, calls: Sequence[dict[str, str]], method: str = "eth_call") -> list[object]:
    """``eth_call`` or ``eth_estimateGas`` on the latest state: the result, or the node's `RpcError`, in order.

    Raises `Unanswered`.
    """
    return endpoint.batch([(method, [call, "latest"]) for call in calls])


def call_fields(sender: str, to: str, data: bytes, value_wei: int, gas_limit: int) -> dict[str, str]:
    """A call as ``eth_call`` and ``eth_estimateGas`` take it."""
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
    """The results of a batch, all of which are needed: raises the first `RpcError` among them."""
    for result in results:
        if isinstance(result, RpcError):
            raise result
    return results


_FEES: tuple[Request, Request] = (
    ("eth_feeHistory", ["0xa", "latest", list(PERCENTILES)]),
    ("eth_maxPriorityFeePerGas", []),
)


def _read_or_unanswered(endpoint: Endpoint, context: RelayerContext, messages: Sequence[OpenMessage]) -> ChainSnapshot:
    try:
        return _read(endpoint, context, messages)
    except (KeyError, TypeError, ValueError) as error:  # an answer of another shape is no answer
        raise Unanswered(f"malformed answer ({type(error).__name__})") from None


def _read(endpoint: Endpoint, context: RelayerContext, messages: Sequence[OpenMessage]) -> ChainSnapshot:
    settings = context.settings
    chain_id, latest = answered(endpoint.batch([("eth_chainId", []), ("eth_getBlockByNumber", ["latest", False])]))
    if int(chain_id, 16) != settings.chain_id:
        raise Unanswered("another chain")
    head = int(latest["number"], 16)
    tag = horizon_tag(settings.chain_id, settings.confirmations, settings.money_horizon, head)
    # A key taken out of the settings may still have messages under way.
    addresses = list(dict.fromkeys([*settings.keyring.addresses, *(message.sender for message in messages)]))
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
    unfinalized_mined = frozenset(
        message.message_id
        for message in messages
        if message.block_number is not None
        and message.block_number > horizon
        and hashes[message.block_number] == message.block_hash
    )
    # A message whose nonce is not used yet can have no receipt, so thousands in flight are not asked about.
    asked = [
        tx_hash
        for message in messages
        if message.message_id not in unfinalized_mined
        and (message.block_number is not None or message.nonce < latest_nonces[message.sender])
        for tx_hash in message.attempts
    ]
    settled, receipts = _pinned(endpoint, horizon_block["hash"], addresses, asked)
    return ChainSnapshot(
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
        unfinalized_mined=unfinalized_mined,
    )


def _pinned(
    endpoint: Endpoint, horizon_hash: str, addresses: Sequence[str], asked: Sequence[str]
) -> tuple[list[int], dict[str, Receipt]]:
    """Each address's nonce at the horizon's very block, and those receipts whose block is canonical to the same endpoint."""
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
