"""EIP-1559 fees, in wei per gas.

The fee cap is tip + 2 * next base fee: it survives five full blocks (1.125^5 = 1.80). The tip is the mean of the median
tips of the last blocks, blocks without any left out; else what the node proposes; else the configured fallback.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fees:
    max_fee_wei: int
    tip_wei: int


def choose_fees(base_fee: Any, history: Any, proposed_tip: Any, fallback_tip_wei: int) -> Fees | None:
    """Fees from a node's answers, each of which may be an error; None where the chain knows no base fee."""
    next_base = _next_base(history) or _number(base_fee)
    if next_base is None:
        return None
    tip = _mean_tip(history)
    if tip is None:
        tip = _number(proposed_tip)
    if tip is None:
        tip = fallback_tip_wei
    return Fees(max_fee_wei=tip + 2 * next_base, tip_wei=tip)


def _next_base(history: Any) -> int | None:
    if not isinstance(history, dict) or not history.get("baseFeePerGas"):
        return None
    return _number(history["baseFeePerGas"][-1])


def _mean_tip(history: Any) -> int | None:
    if not isinstance(history, dict):
        return None
    tips = [_number(rewards[0]) for rewards in history.get("reward") or [] if rewards]
    known = [tip for tip in tips if tip]
    return sum(known) // len(known) if known else None


def _number(value: Any) -> int | None:
    try:
        return int(value, 16)
    except (TypeError, ValueError):
        return None
