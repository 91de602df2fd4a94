"""Reads of the chain: batched JSON-RPC, pinned to one block, over Lido's public interface alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import structlog
from eth_abi.abi import decode as abi_decode
from web3 import Web3
from web3.contract import Contract
from web3.providers import BaseProvider

from apps.common.errors import NotConfigured
from apps.common.wire import time_text
from apps.ethereum.endpoints import Absent, Behind, Endpoints
from apps.ethereum.horizon import checksum_setting, horizon_tag
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from apps.ethereum.node_words import Trouble
from apps.protocols.lido_abi import ERRORS, QUEUE, STETH
from apps.protocols.settings import ProtocolsSettings

REVERTED = 3
WORD_CHARS = 66  # 0x and 32 bytes
# A revert, and what nodes call the servers' own errors: no funds, or more gas than a block holds.
ESTIMATE_REFUSALS = frozenset({REVERTED, -32000, -32003})
# One of two nodes behind one address that lags does not know a block that the other has just named: so often the same
# question is asked again, which meets the other one.
ASK_BEHIND = 3
# A head below one that was seen is not taken for the present for so long; then the chain itself has gone back.
SEEN_HEAD_SEC = 60.0
RATE_PATIENCE_SEC = 2.0

log = structlog.get_logger(__name__)

T = TypeVar("T")


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


class CallReverted(Exception):
    """A call that was allowed to revert did; the text is the decoded reason."""


@dataclass(frozen=True)
class Call:
    """One JSON-RPC request of a batch."""

    method: str
    params: list[Any]
    types: tuple[str, ...] = ()
    block: int | None = None  # for the message, where a read meets no Lido
    optional: bool = False  # None where the contract has no such function


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
        self.web3 = Web3(BaseProvider())  # for the ABI alone: it is connected to nothing
        self._seen = (0, 0.0)

    @cached_property
    def steth(self) -> Contract:
        address = checksum_setting("LIDO_STETH_ADDRESS", self.settings.steth_address)
        return self.web3.eth.contract(address=Web3.to_checksum_address(address), abi=STETH)

    @cached_property
    def queue(self) -> Contract:
        address = checksum_setting("LIDO_WITHDRAWAL_QUEUE_ADDRESS", self.settings.withdrawal_queue_address)
        return self.web3.eth.contract(address=Web3.to_checksum_address(address), abi=QUEUE)

    @cached_property
    def operator(self) -> str:
        return checksum_setting("RELAYER_OPERATOR_ADDRESS", self.settings.operator_address)

    @cached_property
    def custody(self) -> str:
        return checksum_setting("CUSTODY_ETH_ADDRESS", self.settings.custody_address)

    @cached_property
    def chain_id(self) -> int:
        return int(self.batch([Call("eth_chainId", [])])[0], 16)

    def horizon(self) -> int:
        """The highest block the books may act on. Two nodes behind one address may name a lower one than a moment ago."""

        def look(endpoint: Endpoint) -> int:
            head = 0
            settings = self.settings
            if horizon_tag(self.chain_id, 1, settings.money_horizon, 0) != "finalized":
                head = int(endpoint.call("eth_blockNumber", []), 16)
                return int(horizon_tag(self.chain_id, settings.confirmations, settings.money_horizon, head), 16)
            found = endpoint.call("eth_getBlockByNumber", ["finalized", False])
            if found is None:
                raise RpcError(0, "invalid block tag: finalized")
            return int(found["number"], 16)

        return self.endpoints.first(lambda endpoint: well_formed(look, endpoint))

    def block(self, number: int | None = None, wanted: str | None = None) -> Block:
        """A block by number, or the latest; `NotFound` when the chain has no such block. With `wanted`, the block of that
        hash, or `ChainUnavailable` where every node has another one in its place."""
        return self.endpoints.first(lambda endpoint: self._block(endpoint, number, wanted))

    def _block(self, endpoint: Endpoint, number: int | None, wanted: str | None = None) -> Block:
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
        """Whether a later head was seen a moment ago: a node that lags must not be taken for the present."""
        seen, at = self._seen
        now = time.monotonic()
        if head < seen and now - at < SEEN_HEAD_SEC:
            return True
        self._seen = (head, now)
        return False

    def call(
        self, contract: Contract, name: str, arguments: Sequence[Any], block: Block, *types: str, optional: bool = False
    ) -> Call:
        """An ``eth_call`` pinned to a block, decoded as `types`."""
        data = contract.encode_abi(name, args=list(arguments))
        return Call("eth_call", [{"to": contract.address, "data": data}, block.pin], types, block.number, optional)

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        """Ask everything of one node and decode; raises `CallReverted` or `ChainUnavailable`."""
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

    def state(self, block_number: int | None, wanted: str | None = None) -> dict[str, Any]:
        """The `lido state` shape at one block: two round trips, to one node. `wanted` as in `block`."""
        return self.endpoints.first(lambda endpoint: self._state(endpoint, self._block(endpoint, block_number, wanted)))

    def _state(self, endpoint: Endpoint, block: Block) -> dict[str, Any]:
        steth, queue, operator, custody = self.steth, self.queue, self.operator, self.custody
        (
            pooled, shares, operator_shares, operator_steth, allowance, limit, stopped, queue_paused, bunker, eth, custody_eth,
        ) = self.ask(
            endpoint,
            [
                self.call(steth, "getTotalPooledEther", [], block, "uint256"),
                self.call(steth, "getTotalShares", [], block, "uint256"),
                self.call(steth, "sharesOf", [operator], block, "uint256"),
                self.call(steth, "balanceOf", [operator], block, "uint256"),
                self.call(steth, "allowance", [operator, queue.address], block, "uint256"),
                self.call(steth, "getStakeLimitFullInfo", [], block, "bool", "bool", *["uint256"] * 5),
                self.call(steth, "isStopped", [], block, "bool"),
                self.call(queue, "isPaused", [], block, "bool"),
                self.call(queue, "isBunkerModeActive", [], block, "bool"),
                Call("eth_getBalance", [operator, block.pin], ("wei",)),
                Call("eth_getBalance", [custody, block.pin], ("wei",)),
            ],
        )  # fmt: skip
        paused, limited, current, maximum = limit[0], limit[1], limit[2], limit[3]
        return {
            "chain_id": self.chain_id,
            "block_number": block.number,
            "block_hash": block.hash,
            "block_time": _time(block.timestamp),
            "total_pooled_ether_wei": str(pooled),
            "total_shares": str(shares),
            "share_rate": str(pooled * 10**27 // shares if shares else 0),
            "operator": {
                "address": operator,
                "shares": str(operator_shares),
                "steth_wei": str(operator_steth),
                "eth_wei": str(eth),
                "allowance_wei": str(allowance),
            },
            "custody": {"address": custody, "eth_wei": str(custody_eth)},
            "stake_limit": {
                "current_wei": str(current) if limited else None,
                "max_wei": str(maximum) if limited else None,
            },
            "switches": {
                "staking_paused": bool(paused),
                "queue_paused": bool(queue_paused),
                "stopped": bool(stopped),
                "bunker": bool(bunker),
            },
        }


MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def well_formed(look: Callable[[Endpoint], T], endpoint: Endpoint) -> T:
    """A look whose answers have another shape is no look."""
    try:
        return look(endpoint)
    except MALFORMED as error:
        raise Unanswered(f"malformed answer ({type(error).__name__})") from None


def read_block(found: Any) -> Block:
    return Block(int(found["number"], 16), str(found["hash"]), int(found["timestamp"], 16))


def decoded(call: Call, result: Any) -> Any:
    if isinstance(result, RpcError):
        if call.optional and _is_revert(result):
            return None
        _raise_error(call, result)
    if not call.types:
        return result
    if call.types == ("wei",):
        return int(result, 16)
    if call.optional and len(result) < WORD_CHARS:
        return None
    if result == "0x":
        raise _not_lido(call)
    values = abi_decode(call.types, bytes.fromhex(str(result)[2:]))
    return values[0] if len(values) == 1 else values


def _raise_error(call: Call, error: RpcError) -> NoReturn:
    """Only an estimate may revert; a read that does met another contract; all else is the node's own trouble."""
    if call.method == "eth_estimateGas" and error.code in ESTIMATE_REFUSALS and error.trouble is Trouble.OTHER:
        raise CallReverted(decode_revert(error))
    if call.method == "eth_call" and _is_revert(error):
        raise _not_lido(call)
    log.warning("rpc_error", method=call.method, code=error.code, message=error.message[:200])
    raise error


def _is_revert(error: RpcError) -> bool:
    return error.code == REVERTED or "revert" in error.message


def _not_lido(call: Call) -> NotConfigured:
    target = call.params[0]["to"]
    return NotConfigured(f"In block {call.block} there is no contract of Lido at {target}; check the addresses set.")


def decode_revert(error: RpcError) -> str:
    """The reason of a revert: an Error(string), a Lido custom error by selector, or the node's message."""
    selector, body = error.data[:4].hex(), error.data[4:]
    if selector == "08c379a0":
        return str(abi_decode(["string"], body)[0])
    if selector in ERRORS:
        return ERRORS[selector]
    return error.message.removeprefix("execution reverted: ")[:200] or "execution reverted"


def _time(timestamp: int) -> str:
    return time_text(datetime.fromtimestamp(timestamp, UTC))
