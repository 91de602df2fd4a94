"""What a loss may take is told by a scan that is made ahead of the lock, and corrected by what has changed since."""

import pytest

from apps.common.database import Sessions, transaction
from apps.rewards import index_math, standings, store
from apps.rewards.models import RewardPosition
from apps.rewards.standings import Outdated, Scan
from tests.support.rewards import POOL, House, accrual

ALL = 10**30
# With pending of 3, 2 and 1 wei, from the first to the last: zoe is the poorest, then cat.
STAKES = (("ann", "a:1"), ("ben", "a:2"), ("cat", "a:3"))


@pytest.fixture
def sessions(house: House) -> Sessions:
    found: Sessions = house.client.application.extensions["sessions"]
    return found


@pytest.fixture
def scan(house: House, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Scan:
    """A scan that names the two poorest of four."""
    monkeypatch.setattr(standings, "POOREST", 2)
    weight = 0
    for user, gain in STAKES:
        house.stake(f"s:{user}", user, 100)
        weight += 100
        house.accrue(gain, weight // 100)
    house.stake("s:zoe", "zoe", 100)
    house.sql("UPDATE reward_pools SET lowest_standing = NULL")
    found = standings.scan_ahead(sessions, POOL, -ALL)
    assert found is not None
    assert list(found.poorest) == ["zoe", "cat"]
    return found


def least(sessions: Sessions, scan: Scan | None) -> int | None:
    """The least standing as a loss of all would use it, and the same by the arithmetic."""
    with transaction(sessions) as session:
        held = standings.with_standing(session, store.lock_pool(session, POOL), -ALL, scan)
        exact = index_math.lowest_standing(store.position_state(row) for row in session.query(RewardPosition))
        assert held.lowest == exact
        return held.lowest


@pytest.mark.parametrize("leaves", [(), ("zoe",), ("cat",), ("ann", "ben", "zoe")])
def test_least_standing__one_of_the_poorest_unchanged_since_the_scan__is_exact(
    house: House, sessions: Sessions, scan: Scan, leaves: tuple[str, ...]
) -> None:
    for user in leaves:
        house.stake(f"u:{user}", user, -100)
    least(sessions, scan)


def test_least_standing__a_poorer_one_came_after_the_scan__is_exact(
    house: House, sessions: Sessions, scan: Scan
) -> None:
    for user in scan.poorest:
        house.stake(f"u:{user}", user, -100)
    house.stake("s:new", "new", 7)
    least(sessions, scan)


def test_least_standing__all_of_the_poorest_left_since_the_scan__is_asked_for_again(
    house: House, sessions: Sessions, scan: Scan
) -> None:
    for user in scan.poorest:
        house.stake(f"u:{user}", user, -100)
    with pytest.raises(Outdated):
        least(sessions, scan)
    least(sessions, standings.scan_ahead(sessions, POOL, -ALL))


def test_loss__whose_scan_is_outdated_each_time__is_told_to_come_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.stake("s:1", "ann", 100)
    monkeypatch.setattr("apps.rewards.service.scan_ahead", lambda *_: None)
    assert house.refusal("/v1/accruals", accrual("loss", -ALL)) == (409, "in_progress")
    assert house.pool()["deficit_wei"] == 0
    monkeypatch.undo()
    assert int(house.accrue("loss", -ALL)["distributed_wei"]) == -100


def test_scan__while_a_loss_is_being_settled__is_not_made(house: House, sessions: Sessions, scan: Scan) -> None:
    """The caller of a great loss asks again and again until it is settled; each time all positions would be read."""
    house.sql("UPDATE reward_pools SET settling_prefix = 'loss:settle:'")
    assert standings.scan_ahead(sessions, POOL, -ALL) is None
