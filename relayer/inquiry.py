"""Questions that only an ending raises: why it reverted, who took a nonce, and whether another node agrees."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from relayer.chain import Look, OpenMessage, Receipt, answered, call_fields, read_receipt
from relayer.reverts import OUT_OF_GAS, UNKNOWN, Revert, decode_revert
from relayer.rpc import Endpoint, Endpoints, Request, RpcError, Unanswered
from relayer.settings import RelayerSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Occupant:
    """Who used a nonce that no attempt of ours has a receipt for; `tx_hash` None: no transaction of this sender did."""

    block_number: int
    block_hash: str
    tx_hash: str | None


@dataclass(frozen=True)
class Ending:
    """What is about to end a message: the receipt of an attempt, or a stranger in its nonce."""

    message: OpenMessage
    receipt: Receipt | None = None
    occupant: Occupant | None = None


def why_reverted(endpoint: Endpoint, message: OpenMessage, receipt: Receipt) -> Revert:
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


def find_occupant(look: Look, message: OpenMessage) -> Occupant | None:
    """Binary search for the block in which the nonce was used, from the block at which it certainly was not.

    None where the node could not tell; that proves nothing.
    """
    low, high = message.observed_block, look.horizon
    try:
        while high - low > 1:
            middle = (low + high) // 2
            count = int(look.endpoint.call("eth_getTransactionCount", [message.address, hex(middle)]), 16)
            low, high = (low, middle) if count > message.nonce else (middle, high)
        block = look.endpoint.call("eth_getBlockByNumber", [hex(high), True])
        for transaction in block["transactions"]:
            if (
                transaction["from"].lower() == message.address.lower()
                and int(transaction["nonce"], 16) == message.nonce
            ):
                return Occupant(high, block["hash"], transaction["hash"])
        return Occupant(high, block["hash"], None)
    except (RpcError, Unanswered, KeyError, TypeError, ValueError) as error:
        log.warning("occupant_not_found", message_id=message.message_id, kind=type(error).__name__)
        return None


def agreed(settings: RelayerSettings, endpoints: Endpoints, look: Look, endings: Sequence[Ending]) -> list[Ending]:
    """Those endings that enough endpoints see alike, at the same block hashes.

    Two must where two answer; one that has long been silent is not waited for, unless SETTLE_QUORUM says so. One that
    answers something else counts as a voice that is missing: nothing is lost by waiting.
    """
    others = [one for one in endpoints.all if one is not look.endpoint]
    votes = dict.fromkeys((ending.message.message_id for ending in endings), 1)
    silent = 0
    for endpoint in others:
        if not endings or (endpoints.out(endpoint) and endpoint not in endpoints.awake()):
            silent += endpoints.out(endpoint)
            continue
        try:
            seen = _sees(endpoint, look, endings)
        except (Unanswered, RpcError):
            endpoints.failed(endpoint)
            silent += endpoints.out(endpoint)
            continue
        endpoints.answered(endpoint)
        for message_id, alike in seen.items():
            votes[message_id] += alike
            if not alike:
                log.warning("endpoints_disagree", message_id=message_id, endpoint=endpoint.number)
    needed = settings.settle_quorum or min(2, 1 + len(others) - silent)
    return [ending for ending in endings if votes[ending.message.message_id] >= needed]


def nonces_elsewhere(endpoints: Endpoints, look: Look, address: str) -> list[int]:
    """The highest nonce, latest or pending, that each other endpoint that answers knows of a key."""
    found = []
    for endpoint in endpoints.awake():
        if endpoint is look.endpoint:
            continue
        try:
            counts = answered(
                endpoint.batch([("eth_getTransactionCount", [address, tag]) for tag in ("latest", "pending")])
            )
            found.append(max(int(count, 16) for count in counts))
        except (Unanswered, RpcError, TypeError, ValueError):
            endpoints.failed(endpoint)
    return found


def _sees(endpoint: Endpoint, look: Look, endings: Sequence[Ending]) -> dict[str, bool]:
    """Whether this endpoint's own chain has each ending: nonce used at the horizon's hash, same receipt, same block."""
    requests: list[Request] = []
    for ending in endings:
        place = ending.receipt or ending.occupant
        number = hex(place.block_number if place else 0)
        hashes = [ending.receipt.tx_hash] if ending.receipt else list(ending.message.attempts)
        requests.append(("eth_getTransactionCount", [ending.message.address, {"blockHash": look.horizon_hash}]))
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
    place = ending.receipt or ending.occupant
    if not isinstance(count, str) or not isinstance(block, dict) or place is None:
        return False
    if int(count, 16) <= ending.message.nonce or block["hash"] != place.block_hash:
        return False
    if ending.receipt is None:
        return all(receipt is None for receipt in receipts)
    return read_receipt(receipts[0]) == ending.receipt
