"""When a withdrawal is probably paid: reports come one a frame, and leave out requests younger than the margin."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.pool.flows.waiting import MARGIN_SEC, expected_at

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked_after", "now_after", "reports"),
    [
        (timedelta(hours=1), timedelta(hours=2), 1),
        (DAY - timedelta(seconds=MARGIN_SEC), DAY - timedelta(hours=1), 1),
        (DAY - timedelta(seconds=MARGIN_SEC - 1), DAY - timedelta(hours=1), 2),  # too young for tomorrow's report
        (timedelta(hours=1), DAY + timedelta(hours=3), 2),  # tomorrow's report is late or was skipped
        (timedelta(hours=1), 5 * DAY + timedelta(hours=3), 6),
        (-3 * DAY, timedelta(0), 1),
    ],
)
def test_expected_at__asked_and_now_after_the_last_report__that_many_frames_on(
    asked_after: timedelta, now_after: timedelta, reports: int
) -> None:
    assert expected_at(NOON + asked_after, NOON, DAY, NOON + now_after) == NOON + reports * DAY


def test_expected_at__a_short_frame__the_margin_is_no_longer_than_it() -> None:
    frame = timedelta(seconds=10)
    assert expected_at(NOON, NOON, frame, NOON) == NOON + frame
