"""EIP-1559 fees, in wei per gas: pure arithmetic over what a node says and what was signed before.

The fee cap is tip + 2 * next base fee: it survives five full blocks (1.125^5 = 1.80). The tip is the mean of the tips
of the last blocks at a percentile, blocks without any left out; else what the node proposes; else the configured
fallback. The percentile is the median, and rises as a deadline comes nearer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

# Nodes replace a transaction when both fields rise by 10 %, Parity's line by 12.5 %: the higher bar passes everywhere.
RAISE_NUMERATOR, RAISE_DENOMINATOR = 1125, 1000
RAISE_AFTER_BLOCKS = 2
RAISE_AFTER_BLOCKS_MOST_URGENT = 1
RAISE_AFTER_SEC = 30  # where blocks do not come
OLD_AFTER_BLOCKS = 10
# Seconds between Ethereum's blocks. The spacing actually seen is not used: measured over one or two blocks it would be
# noise, and a missed block only makes a deadline seem one block farther than it is.
BLOCK_SEC = 12
# The percentile of tips by urgency, and the blocks left to a deadline from which on the next one is taken.
PERCENTILES = (50, 75, 90, 99)
URGENT_FROM_BLOCKS = (25, 10, 5)
MOST_URGENT = len(URGENT_FROM_BLOCKS)


@dataclass(frozen=True)
class Fees:
    max_fee_wei: int
    tip_wei: int


@dataclass(frozen=True)
class Market:
    """What blocks are paid now: the base fee of the next one, below which nothing is included, and for each of
    PERCENTILES a tip, none below the one before it. `head_time`: Unix seconds of the latest block."""

    base_fee_wei: int
    tips_wei: tuple[int, ...]
    head_time: int

    def urgency(self, deadline: datetime | None) -> int:
        """See `urgency`. By the time of the latest block, not a machine's clock: what counts is how many blocks can still
        come."""
        return urgency(None if deadline is None else deadline.timestamp() - self.head_time)

    def fees(self, urgency: int) -> Fees:
        """What a transaction signed now should pay."""
        tip = self.tips_wei[urgency]
        return Fees(max_fee_wei=tip + 2 * self.base_fee_wei, tip_wei=tip)

    def fees_by(self, deadline: datetime | None) -> Fees:
        """Fees for a transaction that must be mined before `deadline`; None: not urgent."""
        return self.fees(self.urgency(deadline))


@dataclass(frozen=True)
class PendingAttempt:
    """The newest attempt of a nonce, signed and not mined.

    What it pays; the blocks and seconds since it was signed; the blocks that came while every lower nonce of its signer was
    mined, so that only its price was in its way; whether nodes called that price too low; its urgency.
    """

    fees: Fees
    waited_blocks: int
    waited_sec: float
    waited_blocks_next_in_line: int
    refused_by_price: bool
    urgency: int


def market(latest: Mapping[str, object], history: object, proposed_tip: object, fallback_tip_wei: int) -> Market | None:
    """The market from a node's latest block and its two answers about fees, each of which may be an error; None where the
    block, and so the chain, has no base fee."""
    next_base = _next_base(history) or _number(latest.get("baseFeePerGas"))
    head_time = _number(latest.get("timestamp"))
    if next_base is None or head_time is None:
        return None
    calm = _mean_tip(history, 0)
    if calm is None:
        calm = _number(proposed_tip)
    if calm is None:
        calm = fallback_tip_wei
    # Blocks without a tip are left out of a mean. At a higher percentile fewer are left out, so that mean may be lower.
    urgent = [_mean_tip(history, place) or 0 for place in range(1, len(PERCENTILES))]
    return Market(next_base, tuple(accumulate([calm, *urgent], max)), head_time)


def urgency(sec_left: float | None) -> int:
    """How urgent it is to be mined, from 0 (also without a deadline) to MOST_URGENT: a place in PERCENTILES."""
    if sec_left is None:
        return 0
    blocks_left = sec_left // BLOCK_SEC
    return sum(blocks_left <= blocks for blocks in URGENT_FROM_BLOCKS)


def within(fees: Fees, gas_limit: int, cap_wei: int) -> Fees:
    """`fees` lowered until gas_limit * max_fee is no more than `cap_wei`."""
    max_fee = min(fees.max_fee_wei, cap_wei // gas_limit)
    return Fees(max_fee, min(fees.tip_wei, max_fee))


def raised(highest: Fees, now: Fees) -> Fees:
    """The least fees that replace everything signed so far and are no less than the market's: both fields rise.

    `highest` is the highest of each field over all attempts of the nonce, as a node may hold any of them.
    """
    return Fees(_raised(highest.max_fee_wei, now.max_fee_wei), _raised(highest.tip_wei, now.tip_wei))


def raise_after_blocks(urgency: int) -> int:
    return RAISE_AFTER_BLOCKS_MOST_URGENT if urgency == MOST_URGENT else RAISE_AFTER_BLOCKS


def why_raise(attempt: PendingAttempt, now: Market) -> str | None:
    """Why the price of an attempt should rise, or None.

    Waiting is not a reason by itself: behind a lower nonce, or while no block is produced, a higher price changes nothing.
    In the last blocks before a deadline each block that does not include it is a reason.
    """
    wanted, paid = now.fees(attempt.urgency), attempt.fees
    after = raise_after_blocks(attempt.urgency)
    if attempt.waited_blocks < after and attempt.waited_sec < RAISE_AFTER_SEC:
        return None
    if paid.max_fee_wei < now.base_fee_wei:
        return "below_base_fee"
    cheaper = paid.max_fee_wei < wanted.max_fee_wei or paid.tip_wei < wanted.tip_wei
    if attempt.refused_by_price and cheaper:
        return "refused_by_price"
    if attempt.waited_blocks_next_in_line < after:
        return None
    if min(paid.tip_wei, paid.max_fee_wei - now.base_fee_wei) < wanted.tip_wei:
        return "tip_below_market"
    if attempt.urgency == MOST_URGENT:
        return "deadline_near"
    return "waited_long" if attempt.waited_blocks_next_in_line >= OLD_AFTER_BLOCKS else None


def _raised(highest: int, now: int) -> int:
    return max(-(-highest * RAISE_NUMERATOR // RAISE_DENOMINATOR), highest + 1, now)


def _next_base(history: object) -> int | None:
    if not isinstance(history, dict) or not history.get("baseFeePerGas"):
        return None
    return _number(history["baseFeePerGas"][-1])


def _mean_tip(history: object, place: int) -> int | None:
    if not isinstance(history, dict):
        return None
    tips = [_number(tip) for rewards in history.get("reward") or [] for tip in (rewards or [])[place : place + 1]]
    known = [tip for tip in tips if tip]
    return sum(known) // len(known) if known else None


def _number(value: object) -> int | None:
    try:
        return int(value, 16) if isinstance(value, str) else None
    except ValueError:
        return None
