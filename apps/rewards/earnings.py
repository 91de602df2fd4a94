"""What one user earned over a span, day by day: from the user's own events and the pool's accruals. Pure.

*Earned* at a moment is what the user had claimed by then and what was pending in whole wei, signed. It only grows by
accruals and releases (and falls by losses): claims and changes of stake leave it as it is. So the days of a span add up to
the difference between its ends, to the wei.

A year's rate is ``earned * year / integral of weight over the span``: what each wei of principal earned, whenever it came.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Protocol

from apps.common.wei import decimal_fraction
from apps.rewards.index_math import P, PositionState, pending_wei, settle

YEAR = timedelta(days=365)
DIGITS = 8


class Event(Protocol):
    """The columns of ``reward_events`` that are read here."""

    kind: str
    user_id: str | None
    staked_delta_wei: int
    exiting_delta_wei: int
    claimed_wei: int
    fee_wei: int | None
    weight_wei: int | None
    acc_reward_per_share: int
    created_at: datetime


@dataclass(frozen=True)
class Day:
    """Wei earned on a day of UTC, as far as the span reaches into it; the user's part of the fees taken on it, rounded down at
    each accrual; and the principal at its end."""

    date: date
    earned_wei: int
    fee_wei: int
    weight_wei: int


@dataclass(frozen=True)
class Earnings:
    """Earned at both ends of a span, each day of it on which something was earned, borne or changed, and the yearly rate as a
    decimal fraction (None where nothing was staked)."""

    opening_wei: int
    closing_wei: int
    fee_wei: int
    apr: str | None
    days: list[Day]


def earnings(events: Iterable[Event], start: datetime, end: datetime) -> Earnings:
    """What a user earned after `start` and up to `end`.

    `events`: in the order of their ids, all of the user's own up to `end`, and the pool's accruals and releases, of those up to
    `start` the last one at least.
    """
    account = _Account(start, end)
    for event in events:
        if not account.comes_to(max(event.created_at, account.at)):
            break
        account.take(event)
    account.comes_to(end + _TICK)
    opening, *closings = account.closed
    return Earnings(
        opening_wei=opening.earned_wei,
        closing_wei=closings[-1].earned_wei if closings else opening.earned_wei,
        fee_wei=account.fee_wei,
        apr=decimal_fraction((account.earned_wei - opening.earned_wei) * (YEAR // _TICK), account.weighted, DIGITS),
        days=list(_days([opening, *closings])),
    )


_TICK = timedelta(microseconds=1)
_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Closed:
    """What is counted at the end of a day, or of the span; the first is its start."""

    at: datetime
    earned_wei: int
    fee_wei: int
    weight_wei: int


@dataclass
class _Account:
    """A position as its events make it, and what is counted on the way."""

    start: datetime
    end: datetime
    position: PositionState = field(default_factory=PositionState)
    index: int = 0
    # Where time stands. What a clock that was set back writes later is taken for then.
    at: datetime = _BEGINNING
    fee_wei: int = 0
    weighted: int = 0  # wei of principal times microseconds, within the span
    closed: list[_Closed] = field(default_factory=list)

    @property
    def earned_wei(self) -> int:
        return self.position.claimed + pending_wei(self.position, self.index)

    def comes_to(self, moment: datetime) -> bool:
        """Close every day that ends before this moment; False where the span does, too."""
        while (mark := self._next_mark()) is not None and mark < moment:
            self._pass(mark)
            self.closed.append(_Closed(mark, self.earned_wei, self.fee_wei, self.position.weight))
        if mark is not None:
            self._pass(moment)
        return mark is not None

    def take(self, event: Event) -> None:
        self.index = event.acc_reward_per_share
        if event.user_id is None:
            if self.closed and event.fee_wei and event.weight_wei:
                self.fee_wei += event.fee_wei * self.position.weight // event.weight_wei
            return
        settled = settle(self.position, self.index)
        after = replace(
            settled,
            staked=settled.staked + event.staked_delta_wei,
            exiting=settled.exiting + event.exiting_delta_wei,
            pending_scaled=settled.pending_scaled - event.claimed_wei * P,
            claimed=settled.claimed + event.claimed_wei,
        )
        if after.weight == 0:  # its fraction of a wei went back to the pool
            after = replace(after, pending_scaled=after.pending_scaled // P * P)
        self.position = after

    def _next_mark(self) -> datetime | None:
        """The start, each midnight of UTC within the span, the end; None after it."""
        if not self.closed:
            return self.start
        last = self.closed[-1].at
        if last == self.end:
            return None
        return min(self.end, datetime.combine(last.astimezone(UTC).date() + timedelta(days=1), time(), UTC))

    def _pass(self, moment: datetime) -> None:
        within = min(moment, self.end) - max(self.at, self.start)
        self.weighted += self.position.weight * max(0, within // _TICK)
        self.at = moment


def _days(closed: list[_Closed]) -> Iterator[Day]:
    for before, after in pairwise(closed):
        earned_wei, fee_wei = after.earned_wei - before.earned_wei, after.fee_wei - before.fee_wei
        if (earned_wei, fee_wei, after.weight_wei) != (0, 0, before.weight_wei):
            on = (after.at - _TICK).astimezone(UTC).date()
            yield Day(on, earned_wei, fee_wei, after.weight_wei)
