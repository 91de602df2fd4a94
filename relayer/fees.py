"""EIP-1559 fees, in wei per gas: pure arithmetic over what a node says and what was signed before.

The fee cap is tip + 2 * next base fee: it survives five full blocks (1.125^5 = 1.80). The tip is the mean of the median
tips of the last blocks, blocks without any left out; else what the node proposes; else the configured fallback.
"""

from dataclasses import dataclass
from typing import Any

# Nodes replace a transaction when both fields rise by 10 %, Parity's line by 12.5 %: the higher bar passes everywhere.
RAISE_NUMERATOR, RAISE_DENOMINATOR = 1125, 1000
RAISE_AFTER_BLOCKS = 2
RAISE_AFTER_SEC = 30  # where blocks do not come
OLD_AFTER_BLOCKS = 10


@dataclass(frozen=True)
class Fees:
    max_fee_wei: int
    tip_wei: int


@dataclass(frozen=True)
class Market:
    """What a transaction signed now should pay, and the base fee of the next block, below which none is included."""

    fees: Fees
    base_fee_wei: int


@dataclass(frozen=True)
class Standing:
    """How the newest attempt of a slot stands: what it pays, for how long it has waited, what nodes said of its price,
    and whether every lower nonce of its signer is mined."""

    fees: Fees
    waited_blocks: int
    waited_sec: float
    refused_by_price: bool
    next_in_line: bool


def market(base_fee: Any, history: Any, proposed_tip: Any, fallback_tip_wei: int) -> Market | None:
    """The market from a node's answers, each of which may be an error; None where the chain knows no base fee."""
    next_base = _next_base(history) or _number(base_fee)
    if next_base is None:
        return None
    tip = _mean_tip(history)
    if tip is None:
        tip = _number(proposed_tip)
    if tip is None:
        tip = fallback_tip_wei
    return Market(Fees(max_fee_wei=tip + 2 * next_base, tip_wei=tip), next_base)


def within(fees: Fees, gas_limit: int, cap_wei: int) -> Fees:
    """`fees` lowered until gas_limit * max_fee is no more than `cap_wei`."""
    max_fee = min(fees.max_fee_wei, cap_wei // gas_limit)
    return Fees(max_fee, min(fees.tip_wei, max_fee))


def raised(highest: Fees, now: Fees) -> Fees:
    """The least that replaces everything signed so far and is no less than the market: both fields rise.

    `highest` is the highest of each field over all attempts of the slot, for any of them may be what a node holds.
    """
    return Fees(_raised(highest.max_fee_wei, now.max_fee_wei), _raised(highest.tip_wei, now.tip_wei))


def why_raise(standing: Standing, now: Market) -> str | None:
    """Why the price of an attempt should rise, or None. Not for waiting alone: who stands behind a lower nonce, or pays
    what others pay while no block comes, gains nothing by paying more."""
    if standing.waited_blocks < RAISE_AFTER_BLOCKS and standing.waited_sec < RAISE_AFTER_SEC:
        return None
    if standing.fees.max_fee_wei < now.base_fee_wei:
        return "below_base_fee"
    cheaper = standing.fees.max_fee_wei < now.fees.max_fee_wei or standing.fees.tip_wei < now.fees.tip_wei
    if standing.refused_by_price and cheaper:
        return "refused_by_price"
    if not standing.next_in_line or standing.waited_blocks < RAISE_AFTER_BLOCKS:
        return None
    if min(standing.fees.tip_wei, standing.fees.max_fee_wei - now.base_fee_wei) < now.fees.tip_wei:
        return "tip_below_market"
    return "waited_long" if standing.waited_blocks >= OLD_AFTER_BLOCKS else None


def _raised(highest: int, now: int) -> int:
    return max(-(-highest * RAISE_NUMERATOR // RAISE_DENOMINATOR), highest + 1, now)


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
