"""How long a request will probably take, part by part. Pure: from what is known now, seconds and what each part rests on.

Nothing is decided by an estimate. What it rests on is measured where it can be: how long recent batches took, how often Lido
reports. How far past estimates were off is published (`apps.pool.quotes.accuracy`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.clients.shapes.pool import QuoteBasis
from apps.clients.shapes.protocols import LidoState
from apps.ethereum.constants import SLOT_SEC
from apps.pool.flows.waiting import expected_at


@dataclass(frozen=True)
class Window:
    """What decides when the next batch opens: the sum and age of what is queued, and the rhythm of batches."""

    queued_wei: int
    waited_sec: float
    threshold_wei: int
    max_wait_sec: float


@dataclass(frozen=True)
class Facts:
    """What an estimate rests on. `took_sec`: how long recent batches took, by kind, none where there was no batch yet;
    `report`: when Lido last reported, and how long after the report before."""

    now: datetime
    state: LidoState
    window: Window
    took_sec: dict[str, float]
    report: tuple[datetime, timedelta] | None = None
    batch_open: bool = False


def stake_basis(amount_wei: int, facts: Facts) -> list[QuoteBasis]:
    """The parts of a stake's time: its batch, the stake limit, the chain."""
    switches = facts.state.switches
    if switches.staking_paused or switches.stopped:
        return [
            QuoteBasis("staking_paused", None, "Staking is paused by the protocol; the request waits in the queue.")
        ]
    return [_window(amount_wei, facts.window), *_limit(amount_wei, facts), _took("stake", facts)]


def unstake_basis(amount_wei: int, facts: Facts) -> list[QuoteBasis]:
    """The parts of an unstake's time: its batch, the chain, Lido's report that pays it, the claim."""
    switches = facts.state.switches
    if switches.queue_paused or switches.stopped:
        return [QuoteBasis("queue_paused", None, "The withdrawal queue is paused; the request waits.")]
    parts = [_window(amount_wei, facts.window)]
    if facts.batch_open:
        parts.append(_took("unstake", facts, "batch_open", "Unstake batches go one at a time, and one is under way."))
    parts.append(_took("unstake", facts))
    asked_sec = sum(part.seconds or 0 for part in parts)
    return [*parts, _report(facts, facts.now + timedelta(seconds=asked_sec)), _took("claim", facts, "claim")]


def total_sec(parts: Sequence[QuoteBasis]) -> int | None:
    """The sum; None where a part of it cannot be told."""
    seconds = [part.seconds for part in parts]
    return None if None in seconds else sum(second for second in seconds if second is not None)


def _window(amount_wei: int, window: Window) -> QuoteBasis:
    if window.queued_wei + amount_wei >= window.threshold_wei:
        detail = f"What is queued reaches {window.threshold_wei} wei with it: its batch opens at once."
        return QuoteBasis("batch_window", 0, detail)
    left = max(0, round(window.max_wait_sec - window.waited_sec))
    detail = (
        f"A batch opens at {window.threshold_wei} wei, or when its oldest request has waited {window.max_wait_sec:g} s."
    )
    return QuoteBasis("batch_window", left, detail)


def _limit(amount_wei: int, facts: Facts) -> list[QuoteBasis]:
    limit = facts.state.stake_limit
    missing = 0 if limit.current_wei is None else amount_wei + facts.window.queued_wei - limit.current_wei
    if missing <= 0:
        return []
    if not limit.growth_per_block_wei:
        return [
            QuoteBasis("stake_limit", None, "Above the protocol's present stake limit; how it refills is not known.")
        ]
    blocks = -(-missing // limit.growth_per_block_wei)
    detail = (
        f"The protocol's stake limit is {missing} wei short, and grows by {limit.growth_per_block_wei} wei a block."
    )
    return [QuoteBasis("stake_limit", blocks * SLOT_SEC, detail)]


def _took(kind: str, facts: Facts, code: str = "confirmation", why: str = "") -> QuoteBasis:
    took = facts.took_sec.get(kind)
    if took is None:
        return QuoteBasis(code, 0, f"{why} No {kind} batch has been completed yet to measure by.".strip())
    return QuoteBasis(code, round(took), f"{why} Half of the recent {kind} batches took no longer.".strip())


def _report(facts: Facts, asked_at: datetime) -> QuoteBasis:
    if facts.state.switches.bunker:
        return QuoteBasis("bunker", None, "The protocol is in bunker mode after a loss; it pays later than usual.")
    if facts.report is None:
        return QuoteBasis(
            "withdrawal_queue", None, "Lido pays in its reports; there has been none to know the rhythm by."
        )
    due = expected_at(asked_at, *facts.report, facts.now)
    detail = f"Lido pays in its reports, the last at {facts.report[0]:%Y-%m-%dT%H:%M:%SZ}, one each {facts.report[1]}."
    return QuoteBasis("withdrawal_queue", max(0, round((due - asked_at).total_seconds())), detail)
