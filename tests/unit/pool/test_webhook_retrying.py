"""When a delivery is tried again, and how long an endpoint that fails is left alone."""

from datetime import UTC, datetime

import pytest

from apps.pool.webhooks.retrying import (
    GIVE_UP_SEC,
    JITTER,
    MAX_RETRY_AFTER_SEC,
    PAUSES_SEC,
    UNWELL_AFTER,
    UNWELL_PAUSES_SEC,
    Health,
    asked_pause_sec,
    given_up,
    pause_sec,
    refusal,
    taken,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_pause__by_attempt__follows_the_table_and_stays_at_its_end() -> None:
    assert [pause_sec(number, 0.0) for number in range(1, 12)] == [*PAUSES_SEC, PAUSES_SEC[-1], PAUSES_SEC[-1]]
    assert pause_sec(1, 1.0) == PAUSES_SEC[0] * (1 + JITTER)


def test_given_up__after_three_days__so_some_twenty_five_attempts() -> None:
    assert not given_up(GIVE_UP_SEC - 1)
    assert given_up(GIVE_UP_SEC)
    age, attempts = 0.0, 1
    while not given_up(age):
        age += pause_sec(attempts, 0.5)
        attempts += 1
    assert 20 < attempts < 30


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_taken__any_2xx__yes(status: int) -> None:
    assert taken(status)


@pytest.mark.parametrize("status", [None, 100, 199, 300, 302, 400, 401, 404, 410, 429, 500, 503])
def test_taken__anything_else__no(status: int | None) -> None:
    assert not taken(status)


def test_health__failures_in_a_row__unwell_after_some_and_at_once_without_an_answer() -> None:
    health = Health(0)
    for _ in range(UNWELL_AFTER - 1):
        health = health.after(500)
        assert (health.is_unwell, health.pause_sec) == (False, 0.0)
    pauses = []
    for _ in range(len(UNWELL_PAUSES_SEC) + 2):
        health = health.after(400)
        pauses.append(health.pause_sec)
    assert pauses == [*UNWELL_PAUSES_SEC, UNWELL_PAUSES_SEC[-1], UNWELL_PAUSES_SEC[-1]]
    assert health.after(204) == Health(0)
    for status in (None, 429, 502, 503, 504):
        assert Health(0).after(status).is_unwell


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "120", 120),
        (503, " 7 ", 7),
        (503, "Sun, 01 Mar 2026 12:02:00 GMT", 120),
        (503, "Sun, 01 Mar 2026 11:00:00 GMT", 0),
        (429, "999999999999999999999999", MAX_RETRY_AFTER_SEC),
        (503, "Wed, 01 Mar 2126 12:00:00 GMT", MAX_RETRY_AFTER_SEC),
        (429, "-5", 0),
        (429, "soon", 0),
        (429, "١٢", 0),
        (429, None, 0),
        (500, "120", 0),
    ],
)
def test_retry_after__as_servers_write_it__respected_within_bounds(
    status: int, header: str | None, seconds: int
) -> None:
    assert asked_pause_sec(status, header, NOW) == seconds


def test_refusal__in_words__says_what_to_do() -> None:
    assert refusal(410)["code"] == "gone"
    assert refusal(301) == {
        "code": "redirected",
        "detail": "Answered 301: redirects are not followed; change the webhook's url.",
    }
    assert refusal(500)["code"] == "refused"
