"""Earnings of a user over a span: the days add up to the difference of its ends, which are what the index says, to the wei."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from apps.common.wei import ETHER
from apps.rewards import index_math
from apps.rewards.earnings import earnings
from apps.rewards.index_math import PoolState, PositionState, pending_wei

START = datetime(2026, 3, 1, 6, tzinfo=UTC)
USERS = ("ann", "bob")


@dataclass
class Row:
    id: int
    kind: str
    created_at: datetime
    acc_reward_per_share: int
    user_id: str | None = None
    staked_delta_wei: int = 0
    exiting_delta_wei: int = 0
    claimed_wei: int = 0
    fee_wei: int | None = None
    weight_wei: int | None = None


class History:
    """A pool and its users, moved by the index's own arithmetic, with the log that it would have written."""

    def __init__(self) -> None:
        self.pool = PoolState()
        self.positions = {user: PositionState() for user in USERS}
        self.rows: list[Row] = []
        self.now = START
        self.earned: list[tuple[datetime, int]] = []

    def stake(self, user: str, wei: int) -> None:
        self.pool, self.positions[user] = index_math.change_stake(self.pool, self.positions[user], wei, 0)
        self._log("stake_delta", user_id=user, staked_delta_wei=wei)

    def claim(self, user: str) -> None:
        self.pool, self.positions[user], done = index_math.claim(self.pool, self.positions[user])
        self._log(
            "claim",
            user_id=user,
            claimed_wei=done.claimed,
            staked_delta_wei=done.staked_delta,
            exiting_delta_wei=done.exiting_delta,
        )

    def accrue(self, wei: int, fee_bps: int = 1000) -> None:
        weight = self.pool.weight
        self.pool, parts = index_math.accrue(self.pool, wei, fee_bps)
        self._log("accrual", fee_wei=parts.fee, weight_wei=weight)

    def earned_by(self, user: str) -> int:
        return self.positions[user].claimed + pending_wei(self.positions[user], self.pool.index)

    def of(self, user: str) -> list[Row]:
        return [row for row in self.rows if row.user_id in {None, user}]

    def wait(self, **span: float) -> None:
        self.now += timedelta(**span)
        self.earned.append((self.now, self.earned_by("ann")))
        self.now += timedelta(microseconds=1)  # what comes next comes after

    def _log(self, kind: str, **values: object) -> None:
        row = Row(len(self.rows) + 1, kind, self.now, self.pool.index, **values)  # type: ignore[arg-type]
        self.rows.append(row)


def at_random(seed: int) -> History:
    history, chance = History(), random.Random(seed)
    history.stake("bob", chance.randrange(1, 10**20))
    for _ in range(120):
        user = chance.choice(USERS)
        what = chance.random()
        if what < 0.4:
            history.accrue(chance.randrange(10**16))
        elif what < 0.6:
            history.stake(user, chance.randrange(1, 10**20))
        elif what < 0.7:
            staked = history.positions[user].staked
            history.stake(user, -chance.choice([staked, staked // 2]))
        elif what < 0.8:
            history.claim(user)
        history.wait(hours=chance.choice([0, 1, 7, 30]), microseconds=1)
    return history


@pytest.mark.parametrize("seed", range(8))
def test_earnings__of_any_history_and_span__are_what_the_index_says_at_both_ends_and_add_up(seed: int) -> None:
    history = at_random(seed)
    for (start, before), (end, after) in [*pairwise(history.earned[::9]), (history.earned[3], history.earned[-1])]:
        found = earnings(history.of("ann"), start, end)
        assert (found.opening_wei, found.closing_wei) == (before, after)
        assert sum(day.earned_wei for day in found.days) == after - before
        assert sum(day.fee_wei for day in found.days) == found.fee_wei
        dates = [day.date for day in found.days]
        assert dates == sorted(set(dates))
        assert all(start.date() <= day <= end.date() for day in dates)


def test_earnings__one_reward_a_day__each_on_its_day_with_the_users_part_of_the_fee() -> None:
    history = History()
    history.stake("ann", 3 * ETHER)
    history.stake("bob", ETHER)
    for _ in range(3):
        history.wait(days=1)
        history.accrue(1000, fee_bps=1000)
    found = earnings(history.of("ann"), START, START + timedelta(days=4))
    assert [(day.date.day, day.earned_wei, day.fee_wei, day.weight_wei) for day in found.days] == [
        (2, 675, 75, 3 * ETHER),
        (3, 675, 75, 3 * ETHER),
        (4, 675, 75, 3 * ETHER),
    ]
    assert (found.opening_wei, found.closing_wei, found.fee_wei) == (0, 2025, 225)


def test_apr__ten_percent_in_a_year__whenever_the_stake_came() -> None:
    history = History()
    history.wait(days=100)
    history.stake("ann", ETHER)
    history.wait(days=73)
    history.accrue(ETHER // 50, fee_bps=0)
    found = earnings(history.of("ann"), START, history.now)
    assert float(str(found.apr)) == pytest.approx(0.1, abs=1e-7)


def test_apr__of_a_loss__is_negative_and_of_nothing_staked_unknown() -> None:
    history = History()
    history.wait(days=1)
    assert earnings(history.of("ann"), START, history.now).apr is None
    history.stake("ann", ETHER)
    history.wait(days=365)
    history.accrue(-ETHER // 100)
    assert earnings(history.of("ann"), START + timedelta(days=1), history.now).apr == "-0.01000000"


def test_earnings__clock_set_back_between_events__nothing_is_lost() -> None:
    history = History()
    history.stake("ann", ETHER)
    history.wait(days=2)
    history.accrue(900, fee_bps=0)
    history.now -= timedelta(days=1)
    history.accrue(100, fee_bps=0)
    found = earnings(history.of("ann"), START, START + timedelta(days=5))
    assert [(day.date.day, day.earned_wei) for day in found.days] == [(3, 1000)]
