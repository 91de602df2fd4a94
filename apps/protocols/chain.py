"""Reads of the chain: batched JSON-RPC, pinned to one block, over Lido's public interface alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NoReturn

import structlog
from eth_abi.abi import decode as abi_decode
from web3 import Web3
from web3.contract import Contract
from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint

from apps.common.errors import NotConfigured, NotFound
from apps.common.ethereum import ChainUnavailable, checksum_setting, make_web3, money_horizon
from apps.common.wire import time_text
from apps.protocols.lido_abi import ERRORS, QUEUE, STETH
from apps.protocols.settings import ProtocolsSettings

REVERTED = 3
WORD_CHARS = 66  # 0x and 32 bytes
# A revert, and what nodes call the servers' own errors: no funds, or more gas than a block holds.
ESTIMATE_REFUSALS = frozenset({REVERTED, -32000, -32003})

log = structlog.get_logger(__name__)


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


class NodeRefused(ChainUnavailable):
    """A node answered, and not with what was asked: it is behind, keeps no state that old, or finds the range too wide."""


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
        self.web3 = make_web3(settings.rpc_urls, settings.rpc_timeout_sec)

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
        """The highest block the books may act on."""
        return money_horizon(self.web3, self.chain_id, self.settings.confirmations, self.settings.money_horizon)

    def block(self, number: int | None = None) -> Block:
        """A block by number, or the latest; `NotFound` when the chain has no such block."""
        tag = "latest" if number is None else hex(number)
        found = self.batch([Call("eth_getBlockByNumber", [tag, False])])[0]
        if found is None:
            raise NotFound(f"The chain has no block {number} yet.")
        return Block(int(found["number"], 16), str(found["hash"]), int(found["timestamp"], 16))

    def call(
        self, contract: Contract, name: str, arguments: Sequence[Any], block: Block, *types: str, optional: bool = False
    ) -> Call:
        """An ``eth_call`` pinned to a block, decoded as `types`."""
        data = contract.encode_abi(name, args=list(arguments))
        return Call("eth_call", [{"to": contract.address, "data": data}, block.pin], types, block.number, optional)

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        """Ask everything in one HTTP request and decode; raises `CallReverted` or `ChainUnavailable`."""
        requests = [(RPCEndpoint(call.method), call.params) for call in calls]
        provider = self.web3.provider
        assert isinstance(provider, JSONBaseProvider)  # what `make_web3` gives
        answers: Any = provider.make_batch_request(requests)
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise ChainUnavailable
        by_id = sorted(answers, key=lambda answer: int(answer["id"]))
        return [_decode(call, answer) for call, answer in zip(calls, by_id, strict=True)]

    def logs(self, addresses: Sequence[str], topics: list[Any], start: int, end: int) -> Call:
        query = {"address": list(addresses), "topics": topics, "fromBlock": hex(start), "toBlock": hex(end)}
        return Call("eth_getLogs", [query])

    def state(self, block_number: int | None) -> dict[str, Any]:
        """The `lido state` shape at one block: two round trips."""
        block = self.block(block_number)
        steth, queue, operator, custody = self.steth, self.queue, self.operator, self.custody
        (
            pooled, shares, operator_shares, operator_steth, allowance, limit, stopped, queue_paused, bunker, eth, custody_eth,
        ) = self.batch(
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
            ]
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


def _decode(call: Call, answer: Any) -> Any:
    if answer.get("error") is not None:
        if call.optional and _is_revert(answer["error"]):
            return None
        _raise_error(call, answer["error"])
    result = answer.get("result")
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


def _raise_error(call: Call, error: Any) -> NoReturn:
    """Only an estimate may revert; a read that does met another contract; all else is the node's own trouble."""
    code = error.get("code") if isinstance(error, dict) else None
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    if call.method == "eth_estimateGas" and code in ESTIMATE_REFUSALS:
        raise CallReverted(decode_revert(error))
    if call.method == "eth_call" and _is_revert(error):
        raise _not_lido(call)
    log.warning("rpc_error", method=call.method, code=code, message=message[:200])
    raise NodeRefused("The node cannot answer this; it may be behind, or keep no state that old.")


def _is_revert(error: Any) -> bool:
    return isinstance(error, dict) and (error.get("code") == REVERTED or "revert" in str(error.get("message", "")))


def _not_lido(call: Call) -> NotConfigured:
    target = call.params[0]["to"]
    return NotConfigured(f"In block {call.block} there is no contract of Lido at {target}; check the addresses set.")


def decode_revert(error: Any) -> str:
    """The reason of a revert: an Error(string), a Lido custom error by selector, or the node's message."""
    data = error.get("data") if isinstance(error, dict) else None
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if isinstance(data, str) and data.startswith("0x") and len(data) >= 10:
        selector, body = data[2:10], bytes.fromhex(data[10:])
        if selector == "08c379a0":
            return str(abi_decode(["string"], body)[0])
        if selector in ERRORS:
            return ERRORS[selector]
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    return message.removeprefix("execution reverted: ")[:200] or "execution reverted"


def _time(timestamp: int) -> str:
    return time_text(datetime.fromtimestamp(timestamp, UTC))
