"""One JSON-RPC request of a batch, how its answer is decoded, and what an answer that is an error means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import structlog

from apps.common.errors import NotConfigured
from apps.ethereum.contracts import QUEUE
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from apps.ethereum.node_words import Trouble
from apps.ethereum.reverts import decode_revert

REVERTED = 3
WORD_CHARS = 66  # 0x and 32 bytes
# The codes of a refused estimate: a revert, or the sender's lack of funds, or more gas than a block holds.
ESTIMATE_REFUSALS = frozenset({REVERTED, -32000, -32003})
MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)

log = structlog.get_logger(__name__)

T = TypeVar("T")


class CallReverted(Exception):
    """A call that was allowed to revert did; the text is the decoded reason."""


@dataclass(frozen=True)
class Call:
    """One JSON-RPC request.

    `decode` reads the result, which is given as the node says it where there is none. `block` is for the message where a
    read meets no contract of Lido. An `optional` read is None where the contract has no such function.
    """

    method: str
    params: list[Any]
    decode: Callable[[str], Any] | None = None
    block: int | None = None
    optional: bool = False


def well_formed(look: Callable[[Endpoint], T], endpoint: Endpoint) -> T:
    """What `look` finds at a node. Raises `Unanswered` where the node's answers have another shape than they must."""
    try:
        return look(endpoint)
    except MALFORMED as error:
        raise Unanswered(f"malformed answer ({type(error).__name__})") from None


def decoded(call: Call, result: Any) -> Any:
    """The value in a result. Raises what an error in its place means, and one of `MALFORMED` for another shape."""
    if isinstance(result, RpcError):
        if call.optional and _is_revert(result):
            return None
        _raise_error(call, result)
    if call.decode is None:
        return result
    if call.optional and len(result) < WORD_CHARS:
        return None
    if result == "0x":
        raise _not_lido(call)
    return call.decode(result)


def revert_reason(error: RpcError) -> str:
    """The reason of a revert: the text of an ``Error(string)``, the name of a custom error, or else the node's message."""
    revert = decode_revert(error.data)
    if revert.name == "Error":
        return revert.detail
    if revert.name in QUEUE.errors:
        return revert.name
    return error.message.removeprefix("execution reverted: ")[:200] or "execution reverted"


def _raise_error(call: Call, error: RpcError) -> NoReturn:
    """Only an estimate may revert; a read that does met another contract; all else is the node's own trouble."""
    if call.method == "eth_estimateGas" and error.code in ESTIMATE_REFUSALS and error.trouble is Trouble.OTHER:
        raise CallReverted(revert_reason(error))
    if call.method == "eth_call" and _is_revert(error):
        raise _not_lido(call)
    log.warning("rpc_error", method=call.method, code=error.code, message=error.message[:200])
    raise error


def _is_revert(error: RpcError) -> bool:
    return error.code == REVERTED or "revert" in error.message


def _not_lido(call: Call) -> NotConfigured:
    target = call.params[0]["to"]
    return NotConfigured(f"In block {call.block} there is no contract of Lido at {target}; check the addresses set.")
