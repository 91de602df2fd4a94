"""The database backend ended at every single statement of every write, the commit included; the call is then repeated.

Either nothing had happened or all of it had: the repeated call makes the same state as a call that was never disturbed.
"""

import json
from collections.abc import Callable

import pytest

from tests.support.backends import BackendKiller
from tests.support.rewards import House, Json, accrual, claim, deltas, make_house, release

GWEI = 10**9
ETHER = 10**18
Write = Callable[[str], tuple[str, Json]]
WRITES: dict[str, Write] = {
    "gain": lambda pool: ("/v1/accruals", accrual(f"{pool}:m", 1001, pool)),
    "great loss": lambda pool: ("/v1/accruals", accrual(f"{pool}:m", -3 * GWEI, pool)),
    "loss beyond the stake": lambda pool: ("/v1/accruals", accrual(f"{pool}:m", -9 * ETHER, pool)),
    "refused release": lambda pool: ("/v1/parked/release", release(f"{pool}:m", 51, pool)),
    "claim": lambda pool: ("/v1/claims", claim(f"{pool}:m", "ann", pool)),
    "release": lambda pool: ("/v1/parked/release", release(f"{pool}:m", 20, pool)),
    "deltas": lambda pool: (
        "/v1/stake-deltas",
        deltas((f"{pool}:m", "ann", -5, 5), (f"{pool}:n", "cat", ETHER, 0), pool_id=pool),
    ),
    "replay": lambda pool: ("/v1/accruals", accrual(f"{pool}:a:2", 301, pool)),
}
FIRST_STATUS = {"refused release": 409, "replay": 200}


def live(house: House, pool: str) -> None:
    house.accrue(f"{pool}:a:1", 50, pool)
    house.stake(f"{pool}:s:1", "ann", ETHER, 0, pool)
    house.stake(f"{pool}:s:2", "ben", 2 * ETHER, 7, pool)
    house.accrue(f"{pool}:a:2", 301, pool)


def state(house: House, pool: str) -> str:
    """All there is about a pool, but for its name, its times and its sequence numbers."""
    found = [house.events(pool_id=pool), house.get("/v1/positions", pool_id=pool)["items"], house.pool(pool)]
    for item in [*found[0], *found[1]]:
        for name in ("id", "created_at", "updated_at"):
            item.pop(name, None)
    return json.dumps(found).replace(pool, "pool")


@pytest.mark.parametrize("name", WRITES)
def test_write__backend_killed_at_every_statement__repeated_once_it_is_as_if_undisturbed(
    make_database: Callable[[str], str], name: str
) -> None:
    house = make_house(make_database("rewards"), fee_bps=1000)
    killer = BackendKiller(house.client.application.extensions["sessions"].kw["bind"])
    live(house, "undisturbed")
    house.post(*WRITES[name]("undisturbed"))
    wanted = state(house, "undisturbed")
    number = 1
    while True:
        pool = f"pool-{number}"
        path, body = WRITES[name](pool)
        live(house, pool)
        with killer.at(number):
            broken = house.post(path, body)
        if not killer.killed:
            break
        assert (broken.status_code, broken.get_json()["code"]) == (503, "database_unavailable"), number
        repeated = house.post(path, body)
        # Killed after its commit, before it has seen that all is settled, a loss is told of again.
        assert repeated.status_code in {FIRST_STATUS.get(name, 201), 200 if "loss" in name else None}, number
        assert state(house, pool) == wanted, number
        again = house.post(path, body)
        assert again.status_code == (409 if name == "refused release" else 200), number
        assert again.headers["Idempotent-Replay"] == "true"
        number += 1
    assert number > 3
    assert house.differences() == []
