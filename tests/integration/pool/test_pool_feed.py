"""The feed's numbers: without gaps, in one order for all readers, and never one below what a reader has seen."""

import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.long_poll import MAX_WAITERS
from apps.common.wei import ETHER
from apps.pool.feed import number_events, record_events
from tests.support.pool import FullHouse, PoolHouse
from tests.support.protocols import KEY


def stake(user: str) -> dict[str, str]:
    return {"message_id": f"s:{user}", "user_id": user, "amount_wei": str(ETHER)}


def test_event__committed_after_a_later_one_was_numbered__comes_behind_it_and_no_reader_skips_it(
    full: FullHouse,
) -> None:
    full.deposit("ann", ETHER)
    (late,) = full.pool.queue_stakes([ETHER])
    with transaction(full.pool.context.sessions) as session:
        record_events(session, [late])  # its id is drawn first
        made = full.post("/v1/stakes", stake("ann")).get_json()
        seen = full.get("/v1/events")
        assert [item["pool_request_id"] for item in seen["items"]] == [made["id"]] * 2
    follows = full.get("/v1/events", after=seen["next"])
    assert [(item["sequence"], item["pool_request_id"]) for item in follows["items"]] == [(3, late)]


def test_feed__read_by_many_while_stakes_are_made__each_sees_every_event_once_in_one_order(full: FullHouse) -> None:
    users = [f"u{number}" for number in range(24)]
    for user in users:
        full.deposit(user, ETHER)

    def write(number: int) -> None:
        for user in users[number::4]:
            full.pool.client().post("/v1/stakes", json=stake(user), headers={HEADER: KEY})

    def follow(_: int) -> list[tuple[int, str, str]]:
        client = full.pool.client()
        seen: list[tuple[int, str, str]] = []
        deadline = time.monotonic() + 120
        while len(seen) < 2 * len(users):
            assert time.monotonic() < deadline, f"only {len(seen)} events came"
            query = {"after": seen[-1][0] if seen else 0, "limit": 7}
            answer = client.get("/v1/events", query_string=query, headers={HEADER: KEY}).get_json()
            seen += [(item["sequence"], item["user_id"], item["type"]) for item in answer["items"]]
        return seen

    with ThreadPoolExecutor(7) as threads:
        writers = [threads.submit(write, number) for number in range(4)]
        readers = [threads.submit(follow, number) for number in range(3)]
        for writer in writers:
            writer.result()
        one, *others = [reader.result() for reader in readers]
    assert [sequence for sequence, _, _ in one] == list(range(1, 2 * len(users) + 1))
    assert all(other == one for other in others)
    for user in users:
        assert [kind for _, whose, kind in one if whose == user] == ["request.reserving", "request.queued"]


def test_numbering__by_many_at_once__each_event_once(house: PoolHouse) -> None:
    with transaction(house.context.sessions) as session:
        record_events(session, house.queue_stakes([ETHER] * 40))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: number_events(house.context.sessions), range(8)))
    answer = house.client().get("/v1/events", query_string={"limit": 200}, headers={HEADER: KEY}).get_json()
    assert [item["sequence"] for item in answer["items"]] == list(range(1, 41))
    assert len({item["pool_request_id"] for item in answer["items"]}) == 40


def test_feed__waited_for_by_many__so_many_wait_holding_nothing_and_all_are_answered_by_one_event(
    house: PoolHouse,
) -> None:
    client = house.client()
    feed = client.application.extensions["service"].reads._feed
    busy = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )

    def read(wait: int) -> tuple[list[str], int]:
        own = client.application.test_client()
        answer = own.get("/v1/events", query_string={"after": 0, "wait": wait}, headers={HEADER: KEY}).get_json()
        return [item["type"] for item in answer["items"]], answer["next"]

    with ThreadPoolExecutor(MAX_WAITERS) as threads:
        waiting = [threads.submit(read, 30) for _ in range(MAX_WAITERS)]
        while feed._waited_for[None] < MAX_WAITERS:
            time.sleep(0.001)
        assert read(30) == ([], 0), "no room to wait: answered at once"
        assert [one.done() for one in waiting] == [False] * MAX_WAITERS
        with transaction(house.context.sessions) as session:
            assert session.scalar(busy) == 0
        with transaction(house.context.sessions) as session:
            record_events(session, house.queue_stakes([ETHER]))
        assert [one.result() for one in waiting] == [(["request.queued"], 1)] * MAX_WAITERS
    assert read(30) == (["request.queued"], 1), "what is there is answered at once"


def test_feed__wait_out_of_bounds__refused_by_name(house: PoolHouse) -> None:
    for wait in ("-1", "31", "nan", "soon"):
        answer = house.client().get("/v1/events", query_string={"wait": wait}, headers={HEADER: KEY})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["wait"])
