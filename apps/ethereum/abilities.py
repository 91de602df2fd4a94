"""What a node can and cannot do, found out by asking: for the status pages, which `staking doctor` reads.

An entry is a ``dict[str, Any]``, as it goes into the free JSON of a status page: a node that does not answer has fewer
names in it than one that does.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

from apps.ethereum.constants import ZERO_ADDRESS
from apps.ethereum.endpoints import Endpoints
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from apps.ethereum.limits import MAX_BATCH

ASKED_AGAIN_SEC = 60.0
# How far back state is looked for; a node that still has it at the last is taken to keep all.
DEPTHS = (64, 128, 1_000, 10_000, 100_000)


class Abilities:
    """Asks each node at most once a minute per process: monitoring reads status pages every few seconds."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._lock = threading.Lock()
        self._found: list[dict[str, Any]] = []
        self._asked_at = 0.0

    def all(self) -> list[dict[str, Any]]:
        """One entry a node, in order of preference."""
        with self._lock:
            if not self._found or time.monotonic() - self._asked_at > ASKED_AGAIN_SEC:
                self._found = [look_at(endpoint) for endpoint in self._endpoints.all]
                self._asked_at = time.monotonic()
            for endpoint, entry in zip(self._endpoints.all, self._found, strict=True):
                entry["batch_limit"] = _batch_limit(endpoint)
            return [dict(entry) for entry in self._found]


def look_at(endpoint: Endpoint) -> dict[str, Any]:
    """`batch_limit`: calls that one request may hold, None where no limit was met. `state_depth`: blocks back to which state
    was found, None where the node does not take block hashes or does not answer. The others: whether it has the method."""
    try:
        return {"endpoint": endpoint.number, "answers": True, **_found(endpoint), "batch_limit": _batch_limit(endpoint)}
    except (Unanswered, RpcError, KeyError, TypeError, ValueError):
        return {"endpoint": endpoint.number, "answers": False, "batch_limit": _batch_limit(endpoint)}


def lacks(entry: Mapping[str, Any]) -> list[str]:
    """What a node cannot do, by its entry; one sentence for people each."""
    if not entry["answers"]:
        return ["does not answer"]
    said = []
    if entry["batch_limit"] is not None:
        said.append(f"takes at most {entry['batch_limit']} calls a batch")
    for name, words in (
        ("block_hashes", "does not take block hashes (EIP-1898), which every read of state needs"),
        ("finalized", "has no finalized block: set MONEY_HORIZON=depth, or use another node"),
        ("fee_history", "has no eth_feeHistory: fees fall back to FALLBACK_GAS_TIP_CAP_WEI"),
        ("block_receipts", "has no eth_getBlockReceipts: receipts are read one by one, which costs more"),
    ):
        if not entry[name]:
            said.append(words)
    if entry["state_depth"] is not None and entry["state_depth"] < DEPTHS[-1]:
        said.append(f"keeps the state of {entry['state_depth']} blocks: a longer standstill needs an archive node")
    return said


def _found(endpoint: Endpoint) -> dict[str, Any]:
    head = int(endpoint.call("eth_blockNumber", []), 16)
    # As many calls as a batch may hold, so that a limit shows before it is met in earnest.
    endpoint.batch([("eth_chainId", [])] * MAX_BATCH)
    numbers = [head, *(head - depth for depth in DEPTHS if head >= depth)]
    finalized, fees, *blocks = endpoint.batch(
        [
            ("eth_getBlockByNumber", ["finalized", False]),
            ("eth_feeHistory", ["0x1", "latest", [50]]),
            *(("eth_getBlockByNumber", [hex(number), False]) for number in numbers),
        ]
    )
    shown = [block for block in blocks if isinstance(block, dict)]
    last = str(shown[0]["hash"])
    receipts, *states = endpoint.batch(
        [
            ("eth_getBlockReceipts", [last]),
            *(
                ("eth_getBalance", [ZERO_ADDRESS, {"blockHash": block["hash"], "requireCanonical": True}])
                for block in shown
            ),
        ]
    )
    kept = [int(block["number"], 16) for block, state in zip(shown, states, strict=True) if isinstance(state, str)]
    by_hash = bool(kept) and max(kept) == int(shown[0]["number"], 16)
    whole = by_hash and len(kept) == len(blocks)
    return {
        "block_number": head,
        "finalized": isinstance(finalized, dict),
        "fee_history": isinstance(fees, dict),
        "block_receipts": isinstance(receipts, list),
        "block_hashes": by_hash,
        "state_depth": None if not by_hash else DEPTHS[-1] if whole else head - min(kept),
    }


def _batch_limit(endpoint: Endpoint) -> int | None:
    return endpoint.limits.batch if endpoint.limits.refused_batch is not None else None
