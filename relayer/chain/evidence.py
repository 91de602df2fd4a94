"""Extra calls to nodes, needed only to end a message: the reason of a revert, what used its nonce, and whether a second
node agrees."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from apps.ethereum.endpoints import Endpoints
from apps.ethereum.jsonrpc import Endpoint, Request, RpcError, Unanswered
from apps.ethereum.reverts import OUT_OF_GAS, UNKNOWN, Revert, decode_revert
from relayer.chain.snapshot import ChainSnapshot, NodeObject, Receipt, answered, call_fields, read_receipt
from relayer.settings import RelayerSettings
from relayer.store.messages import OpenMessage

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class NonceUser:
    """What used a nonce for which none of the message's attempts has a receipt. `tx_hash` None: no transaction of this
    sender (an EIP-7702 authorisation uses a nonce, too)."""

    block_number: int
    block_hash: str
    tx_hash: str | None


@dataclass(frozen=True)
class Ending:
    """What is about to end a message: the receipt of one of its attempts, or something else that used its nonce."""

    message: OpenMessage
    receipt: Receipt | None = None
    nonce_user: NonceUser | None = None


def why_reverted(endpoint: Endpoint, message: OpenMessage, receipt: Receipt) -> Revert:
    """The reason of a revert, best effort: the same call is run on the state before its block, then on the state after it,
    as the cause may be in that block."""
    call = call_fields(message.sender, message.to, message.data, message.value_wei, message.gas_limit)
    for number in (receipt.block_number - 1, receipt.block_number):
        try:
            endpoint.call("eth_call", [call, hex(number)])
        except RpcError as error:
            if error.data:
                return decode_revert(error.data)
        except Unanswered:
            break
    return OUT_OF_GAS if receipt.gas_used >= message.gas_limit else UNKNOWN


def find_nonce_user(snapshot: ChainSnapshot, message: OpenMessage) -> NonceUser | None:
    """What used a message's nonce: searched between the last block at which it was certainly unused, and the horizon.

    None where the node could not tell; that proves nothing.
    """
    nonce, low, high = message.nonce, message.observed_block, snapshot.horizon
    try:
        number = blocks_using(snapshot.endpoint, message.sender, [nonce], low, high)[nonce]
        block = snapshot.endpoint.call("eth_getBlockByNumber", [hex(number), True])
        transaction = transaction_in(block, message.sender, nonce)
        return NonceUser(number, block["hash"], transaction["hash"] if transaction else None)
    except (RpcError, Unanswered, KeyError, TypeError, ValueError) as error:
        log.warning("nonce_user_not_found", message_id=message.message_id, kind=type(error).__name__)
        return None


def blocks_using(endpoint: Endpoint, address: str, nonces: Iterable[int], low: int, high: int) -> dict[int, int]:
    """In which block each nonce was used: a binary search for all of them at once, one batch a round. At block `low`
    none of them was used, at `high` all are.

    Raises `Unanswered`, `RpcError` (a node without the state of those blocks), `TypeError` or `ValueError`.
    """
    bounds = dict.fromkeys(nonces, (low, high))
    while numbers := sorted({(below + above) // 2 for below, above in bounds.values() if above - below > 1}):
        counts = answered(endpoint.batch([("eth_getTransactionCount", [address, hex(number)]) for number in numbers]))
        used = dict(zip(numbers, (int(count, 16) for count in counts), strict=True))
        for nonce, (below, above) in bounds.items():
            middle = (below + above) // 2
            if above - below > 1:
                bounds[nonce] = (below, middle) if used[middle] > nonce else (middle, above)
    return {nonce: above for nonce, (_, above) in bounds.items()}


def transaction_in(block: NodeObject, address: str, nonce: int) -> NodeObject | None:
    """The sender's transaction of this nonce in a block read with its transactions."""
    for transaction in block["transactions"]:
        if transaction["from"].lower() == address.lower() and int(transaction["nonce"], 16) == nonce:
            found: NodeObject = transaction
            return found
    return None


def elsewhere(
    settings: RelayerSettings, endpoints: Endpoints, snapshot: ChainSnapshot, ask: Callable[[Endpoint], T]
) -> tuple[list[T], int]:
    """What the other endpoints answer to `ask`, and how many endpoints must agree, the snapshot's own counted.

    Two must where two answer. An endpoint that has long been silent is not waited for, unless SETTLE_QUORUM says so. `ask`
    raises `Unanswered` or `RpcError` for silence, and for nothing else.
    """
    others = [one for one in endpoints.all if one is not snapshot.endpoint]
    answers: list[T] = []
    silent = 0
    for endpoint in others:
        if endpoints.out(endpoint) and endpoint not in endpoints.awake():
            silent += 1
            continue
        try:
            answers.append(ask(endpoint))
        except (Unanswered, RpcError):
            endpoints.failed(endpoint)
            silent += endpoints.out(endpoint)
            continue
        endpoints.answered(endpoint)
    return answers, settings.settle_quorum or min(2, 1 + len(others) - silent)


def agreed(
    settings: RelayerSettings, endpoints: Endpoints, snapshot: ChainSnapshot, endings: Sequence[Ending]
) -> list[Ending]:
    """Those endings that enough endpoints see alike, at the same block hashes; see `elsewhere`.

    An endpoint that answers something else counts like one that did not answer: the ending waits, and nothing is lost.
    """
    if not endings:
        return []
    answers, needed = elsewhere(settings, endpoints, snapshot, lambda one: (one.number, _sees(one, snapshot, endings)))
    votes = dict.fromkeys((ending.message.message_id for ending in endings), 1)
    for number, seen in answers:
        for message_id, alike in seen.items():
            votes[message_id] += alike
            if not alike:
                log.warning("endpoints_disagree", message_id=message_id, endpoint=number)
    return [ending for ending in endings if votes[ending.message.message_id] >= needed]


def nonces_elsewhere(endpoints: Endpoints, snapshot: ChainSnapshot, address: str) -> list[int]:
    """The highest nonce, latest or pending, that each other endpoint that answers knows of a key."""
    found = []
    for endpoint in endpoints.awake():
        if endpoint is snapshot.endpoint:
            continue
        try:
            counts = answered(
                endpoint.batch([("eth_getTransactionCount", [address, tag]) for tag in ("latest", "pending")])
            )
            found.append(max(int(count, 16) for count in counts))
        except (Unanswered, RpcError, TypeError, ValueError):
            endpoints.failed(endpoint)
    return found


def _sees(endpoint: Endpoint, snapshot: ChainSnapshot, endings: Sequence[Ending]) -> dict[str, bool]:
    """Whether this endpoint's own chain has each ending: the nonce used at the horizon's hash, same receipt, same block."""
    requests: list[Request] = []
    for ending in endings:
        place = ending.receipt or ending.nonce_user
        number = hex(place.block_number if place else 0)
        hashes = [ending.receipt.tx_hash] if ending.receipt else list(ending.message.attempts)
        requests.append(("eth_getTransactionCount", [ending.message.sender, {"blockHash": snapshot.horizon_hash}]))
        requests.append(("eth_getBlockByNumber", [number, False]))
        requests += [("eth_getTransactionReceipt", [tx_hash]) for tx_hash in hashes]
    results = iter(endpoint.batch(requests))
    seen = {}
    for ending in endings:
        count, block = next(results), next(results)
        receipts = [next(results) for _ in ([ending.receipt] if ending.receipt else ending.message.attempts)]
        try:
            seen[ending.message.message_id] = _alike(ending, count, block, receipts)
        except (RpcError, KeyError, TypeError, ValueError):
            seen[ending.message.message_id] = False
    return seen


def _alike(ending: Ending, count: object, block: object, receipts: Sequence[object]) -> bool:
    place = ending.receipt or ending.nonce_user
    if not isinstance(count, str) or not isinstance(block, dict) or place is None:
        return False
    if int(count, 16) <= ending.message.nonce or block["hash"] != place.block_hash:
        return False
    if ending.receipt is None:
        return all(receipt is None for receipt in receipts)
    return read_receipt(receipts[0]) == ending.receipt
