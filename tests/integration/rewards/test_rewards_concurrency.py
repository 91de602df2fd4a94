"""Eight callers at once: no deadlock, no lost wei, and a follower of the log that never misses an event."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.support.rewards import House, accrual, claim, deltas

CALLERS = 8
CALLS = 25
USERS = [f"user-{number}" for number in range(12)]
ETHER = 10**18


def busy(house: House, caller: int) -> list[tuple[int, str]]:
    """A caller's random day; returns every answer that is not a success."""
    chance = random.Random(caller)
    odd = []
    for number in range(CALLS):
        name = f"{caller}:{number}"
        what = chance.randrange(10)
        if what < 2:
            # The last is often more than all of them have: what is parked is reckoned from positions that others change.
            wei = chance.choice([10**9 + 7, -5, -(10**10), ETHER // 100, -9 * ETHER])
            answer = house.post("/v1/accruals", accrual(name, wei))
        elif what < 4:
            answer = house.post("/v1/claims", claim(name, chance.choice(USERS)))
        else:
            users = chance.sample(USERS, 5)
            items = [
                (f"{name}:{index}", user, chance.choice([ETHER, 3, -(ETHER // 2)]), 0)
                for index, user in enumerate(users)
            ]
            answer = house.post("/v1/stake-deltas", deltas(*items))
        if answer.status_code != 201:
            odd.append((answer.status_code, answer.get_json()["code"]))
    return odd


def test_callers__at_once_on_the_same_users__only_business_refusals_and_clean_books(house: House) -> None:
    seen: list[int] = []
    finished = threading.Event()

    def follow() -> None:
        after = 0
        while True:
            last_look = finished.is_set()
            found = house.get("/v1/events", after=after, limit=200)
            seen.extend(item["id"] for item in found["items"])
            after = found["next"]
            if last_look and not found["items"]:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    with ThreadPoolExecutor(CALLERS) as threads:
        odd = [each for answers in threads.map(lambda caller: busy(house, caller), range(CALLERS)) for each in answers]
    finished.set()
    follower.join()
    assert set(odd) <= {(409, "insufficient_stake")}
    assert house.differences() == []
    assert house.sql("SELECT 1 FROM reward_events WHERE kind = 'accrual' AND parked_wei < 0 AND weight_wei > 0")
    assert seen == [row.id for row in house.sql("SELECT id FROM reward_events ORDER BY id")]
    assert len(seen) > CALLERS * CALLS
