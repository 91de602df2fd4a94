"""The chain as one operator sees it: batched JSON-RPC, pinned to one block, over Lido's public interface alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from apps.ethereum.addresses import checksum_setting
from apps.ethereum.contracts import LIDO, QUEUE, Contract
from apps.ethereum.endpoints import Absent, Behind, Endpoints
from apps.ethereum.horizon import PUBLIC_CHAINS, depth_horizon, needs_finalized
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from apps.ethereum.logs import integer
from apps.ethereum.node_words import Trouble
from apps.protocols.calls import MALFORMED, Call, decoded, well_formed
from apps.protocols.settings import ProtocolsSettings

# Behind one address may stand two nodes, of which one lags and does not know a block that the other has just named. Asking
# the same again, up to this often, meets the other one.
ASK_BEHIND = 3
# For this long a head below one that was seen is taken for a lagging node's; after that the chain itself has gone back.
SEEN_HEAD_SEC = 60.0
RATE_PATIENCE_SEC = 2.0


@dataclass(frozen=True)
class Block:
    """A block that reads are pinned to."""

    number: int
    hash: str
    timestamp: int

    @property
    def pin(self) -> Any:
        """The block parameter of a read (EIP-1898): by hash, so that a reorganization between two reads, or a second
        node on another fork, answers with an error and never with another block's values. By number where the hash is
        not known."""
        return {"blockHash": self.hash, "requireCanonical": True} if self.hash else hex(self.number)


class Chain:
    """The protocol as one operator sees it. Nothing is asked before first use."""

    def __init__(self, settings: ProtocolsSettings) -> None:
        self.settings = settings
        self.endpoints = Endpoints(
            settings.rpc_urls,
            settings.rpc_timeout_sec,
            patience=RATE_PATIENCE_SEC,
            budget=settings.rpc_timeout_sec,
        )
        self._seen = (0, 0.0)

    @cached_property
    def steth(self) -> Contract:
        return Contract(checksum_setting("LIDO_STETH_ADDRESS", self.settings.steth_address), LIDO)

    @cached_property
    def queue(self) -> Contract:
        address = checksum_setting("LIDO_WITHDRAWAL_QUEUE_ADDRESS", self.settings.withdrawal_queue_address)
        return Contract(address, QUEUE)

    @cached_property
    def operator(self) -> str:
        return checksum_setting("RELAYER_OPERATOR_ADDRESS", self.settings.operator_address)

    @cached_property
    def custody(self) -> str:
        return checksum_setting("CUSTODY_ETH_ADDRESS", self.settings.custody_address)

    @cached_property
    def chain_id(self) -> int:
        return integer(self.batch([Call("eth_chainId", [])])[0])

    def horizon(self) -> int:
        """The highest block the books may act on. Two nodes behind one address may name a lower one than a moment ago."""

        def look(endpoint: Endpoint) -> int:
            if not needs_finalized(self.chain_id, self.settings.money_horizon):
                return depth_horizon(self.settings.confirmations, integer(endpoint.call("eth_blockNumber", [])))
            found = endpoint.call("eth_getBlockByNumber", ["finalized", False])
            if found is None:
                raise RpcError(0, "invalid block tag: finalized")
            return integer(found["number"])

        return self.endpoints.first(lambda endpoint: well_formed(look, endpoint))

    def first_block(self, horizon: int) -> int:
        """Where reading the chain begins: where the settings say, else now on public chains and at the beginning elsewhere."""
        start = self.settings.start_block
        if start is None:
            start = horizon if self.chain_id in PUBLIC_CHAINS else 0
        return start

    def block(self, number: int | None = None, wanted: str | None = None) -> Block:
        """A block by number, or the latest; `NotFound` when the chain has no such block. With `wanted`, the block of that
        hash, or `ChainUnavailable` where every node has another one in its place."""
        return self.endpoints.first(lambda endpoint: self.block_of(endpoint, number, wanted))

    def block_of(self, endpoint: Endpoint, number: int | None, wanted: str | None = None) -> Block:
        """The same of this node. Raises `Behind` or `Absent`."""
        for _ in range(ASK_BEHIND):
            found = self.ask(
                endpoint, [Call("eth_getBlockByNumber", ["latest" if number is None else hex(number), False])]
            )
            if found[0] is None:
                continue
            block = read_block(found[0])
            if wanted is not None and block.hash != wanted:
                continue
            if number is not None or not self._is_old(block.number):
                return block
        if wanted is not None:
            raise Behind(f"Block {number} was read as {wanted}, and no node shows it as that.")
        if number is None:
            raise Behind(f"Every node is behind block {self._seen[0]}, which was seen before.")
        raise Absent(f"The chain has no block {number} yet.")

    def _is_old(self, head: int) -> bool:
        """Whether a later head was seen a moment ago: a lagging node's head must not be taken for the present."""
        seen, at = self._seen
        now = time.monotonic()
        if head < seen and now - at < SEEN_HEAD_SEC:
            return True
        self._seen = (head, now)
        return False

    def call(
        self, contract: Contract, name: str, arguments: Sequence[Any], block: Block, *, optional: bool = False
    ) -> Call:
        """An ``eth_call`` pinned to a block, decoded by the contract's ABI."""
        function = contract.interface.functions[name]
        asked = {"to": contract.address, "data": function.encode(*arguments)}
        return Call("eth_call", [asked, block.pin], function.decode, block.number, optional)

    def balance(self, address: str, block: Block) -> Call:
        """The wei that an address holds."""
        return Call("eth_getBalance", [address, block.pin], integer)

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        """Ask everything of one node and decode; raises `CallReverted`, `ChainUnavailable`, or `NotConfigured` where a read
        met another contract than Lido's."""
        return self.endpoints.first(lambda endpoint: self.ask(endpoint, calls))

    def ask(self, endpoint: Endpoint, calls: Sequence[Call]) -> list[Any]:
        """The same of this node. Raises `RpcError` where it cannot answer one of them, or `Unanswered`."""
        results: list[Any] = []
        for _ in range(ASK_BEHIND):
            results = endpoint.batch([(call.method, call.params) for call in calls])
            if not any(isinstance(result, RpcError) and result.trouble is Trouble.BEHIND for result in results):
                break
        try:
            return [decoded(call, result) for call, result in zip(calls, results, strict=True)]
        except MALFORMED as error:
            raise Unanswered(f"malformed answer ({type(error).__name__})") from None

    def logs(self, addresses: Sequence[str], topics: list[Any], start: int, end: int) -> Call:
        query = {"address": list(addresses), "topics": topics, "fromBlock": hex(start), "toBlock": hex(end)}
        return Call("eth_getLogs", [query])


def read_block(found: Any) -> Block:
    """A block from the header that a node shows."""
    return Block(integer(found["number"]), str(found["hash"]), integer(found["timestamp"]))
