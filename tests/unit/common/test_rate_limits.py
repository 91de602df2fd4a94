"""How often a key may call."""

import pytest
from flask import Response

from apps.common import rate_limits
from apps.common.rate_limits import RateLimits


class Clock:
    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rate_limits, "time", found)
    return found


def test_take__a_minutes_worth__then_as_it_fills(clock: Clock) -> None:
    limits = RateLimits()
    taken = [limits.take("bff", 60) for _ in range(61)]
    assert [one.wait_sec for one in taken] == [0] * 60 + [1]
    assert (taken[0].remaining, taken[59].remaining, taken[60].full_in_sec) == (59, 0, 60)
    assert limits.take("olga", 60).wait_sec == 0
    clock.now += 2
    assert [limits.take("bff", 60).wait_sec for _ in range(3)] == [0, 0, 1]


def test_take__long_unused__no_more_than_a_minutes_worth(clock: Clock) -> None:
    limits = RateLimits()
    limits.take("bff", 2)
    clock.now += 86_400
    assert [limits.take("bff", 2).wait_sec > 0 for _ in range(3)] == [False, False, True]


def test_take__names_without_end__memory_stays_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_BUCKETS", 3)
    limits = RateLimits()
    for name in "abcdef":
        limits.take(name, 1)
    assert limits.take("f", 1).wait_sec > 0
    assert limits.take("a", 1).wait_sec == 0


def test_describe__headers__are_those_of_the_draft(clock: Clock) -> None:
    response = Response()
    RateLimits().take("bff", 60).describe(response)
    assert response.headers["RateLimit-Policy"] == '"key";q=60;w=60'
    assert response.headers["RateLimit"] == '"key";r=59;t=1'
