"""Nothing depends on two hosts' clocks agreeing, nor on one host's or the database's never stepping."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from redis import Redis
from sqlalchemy import func, select, text, update

import celeryconfig
from apps.common.database import transaction
from apps.common.wire import new_id
from apps.flow.lease import acquire
from apps.local import tools
from apps.pool import sweep
from apps.pool.models import Request, ScheduleFire, UserLane
from tasks.beat import MAX_WAITING
from tasks.entry import fires
from tests.integration.test_monitoring import COLLECTORS, metrics
from tests.support.pool import PoolHouse, pool_house
from tests.support.ports import free_port
from tests.support.relayer import ROOT
from tests.support.shifted_clock import ShiftedClock

HOUR = 3600


@pytest.fixture
def house(make_database: Callable[[str], str]) -> PoolHouse:
    return pool_house(make_database("pool"))


@contextmanager
def broker() -> Iterator[str]:
    port = free_port()
    command = [str(tools.valkey_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: bool(Redis(port=port).ping()))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@contextmanager
def beat(broker_url: str, clock: ShiftedClock, **settings: str) -> Iterator[None]:
    environment = clock.environment(
        {**os.environ, "PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": broker_url, **settings}
    )
    command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "--loglevel", "WARNING", "--pidfile="]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while True:
        with suppress(ConnectionError, OSError):
            if condition():
                return
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def taken(queue: Redis, name: str = "pool") -> list[dict[str, Any]]:
    """What lies in a queue, taken out of it, as a worker does."""
    found = []
    while item := queue.lpop(name):
        found.append(json.loads(bytes(item)))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("shift", [-86_400, 86_400])
def test_beat__its_clock_a_day_off__its_hints_carry_no_time_that_a_worker_could_read(
    tmp_path: Path, shift: int
) -> None:
    with broker() as url, beat(url, ShiftedClock(tmp_path, shift)):
        queue = Redis.from_url(url)
        seen: list[dict[str, Any]] = []

        def all_schedules() -> bool:
            seen.extend(taken(queue) + taken(queue, "relayer"))
            tasks = {entry["task"] for entry in celeryconfig.beat_schedule.values()}
            return {hint["headers"]["task"] for hint in seen} >= tasks

        wait_until(all_schedules)
    assert {(hint["headers"]["expires"], hint["headers"]["eta"]) for hint in seen} == {(None, None)}


def test_beat__clock_steps_back_an_hour_while_it_runs__goes_on_at_once(tmp_path: Path) -> None:
    clock = ShiftedClock(tmp_path)
    with broker() as url, beat(url, clock, SWEEP_INTERVAL_SEC="0.2"):
        queue = Redis.from_url(url)
        wait_until(lambda: taken(queue) != [])
        clock.shift(-HOUR)
        for _ in range(5):
            wait_until(lambda: any(hint["headers"]["task"] == "tasks.sweep.wake" for hint in taken(queue)))


def test_beat__no_worker_takes_anything__the_queue_stops_growing_and_goes_on_when_taken(tmp_path: Path) -> None:
    with broker() as url:
        queue = Redis.from_url(url)
        queue.rpush("pool", *["{}"] * (MAX_WAITING - 2))
        with beat(url, ShiftedClock(tmp_path), SWEEP_INTERVAL_SEC="0.1"):
            wait_until(lambda: queue.llen("pool") == MAX_WAITING and queue.llen("relayer") >= 3)  # several rounds
            assert queue.llen("pool") == MAX_WAITING
            queue.delete("pool")
            wait_until(lambda: queue.llen("pool") >= 5)


def test_beat__broker_away_and_back__goes_on(tmp_path: Path) -> None:
    port = free_port()
    command = [str(tools.valkey_server()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with beat(f"redis://127.0.0.1:{port}/0", ShiftedClock(tmp_path), SWEEP_INTERVAL_SEC="0.2"):
        for _ in range(2):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                wait_until(lambda: Redis(port=port).llen("pool") > 0)
            finally:
                process.kill()
                process.wait()


def test_fires__database_clock_stepped_back_an_hour__fires_at_once_and_not_twice(house: PoolHouse) -> None:
    for schedule in ("batching", "distribution", "claim_polling", "reconciliation"):
        assert fires(house.context, schedule)
        with transaction(house.context.sessions) as session:  # as if fired by a clock an hour ahead, since corrected
            session.execute(
                update(ScheduleFire)
                .where(ScheduleFire.schedule == schedule)
                .values(fire_at=ScheduleFire.fire_at + text("interval '1 hour'"))
            )
        assert fires(house.context, schedule)
    fired = fires(house.context, "reconciliation"), fires(house.context, "reconciliation")
    assert fired in {(False, False), (True, False), (False, True)}  # True: an hour began just now


def test_sweep__database_clock_stepped_back_an_hour__what_waits_is_due_and_leases_run_one_length(
    house: PoolHouse,
) -> None:
    waiting, leased, idle = house.queue_stakes([1, 1, 1])
    sessions, lease = house.context.sessions, house.context.settings.lease_sec
    ahead = func.now() + text("interval '1 hour'")
    with transaction(sessions) as session:
        session.execute(
            update(Request).values(
                next_run_at=ahead, eligible_at=ahead, queued_at=ahead, hinted_at=ahead, lease_token=None
            )
        )
        session.execute(update(Request).where(Request.id == leased).values(lease_token="t", lease_until=ahead))
        session.execute(update(Request).where(Request.id == idle).values(next_run_at=None))  # something else wakes it
        session.add(UserLane(scope="eth_native", name="ann", holder="x", held_until=ahead))
        session.add(ScheduleFire(schedule="sweep", fire_at=ahead, created_at=ahead))
    assert acquire(sessions, Request, 60) == []
    assert sweep.wake(house.context) == 1
    assert house.hints == [("tasks.requests.advance", None)]
    limit = func.now() + text(f"interval '{lease} seconds'")
    with transaction(sessions) as session:
        late = (Request.lease_until > limit) | (Request.eligible_at > func.now()) | (Request.queued_at > func.now())
        assert session.scalar(select(func.count()).select_from(Request).where(late)) == 0
        assert session.scalar(
            select(Request.lease_until > func.now()).where(Request.id == leased)
        )  # still its holder's
        assert session.scalar(select(func.count()).select_from(UserLane).where(UserLane.held_until > limit)) == 0
        assert session.scalar(select(func.max(ScheduleFire.created_at) <= func.clock_timestamp()))
    assert [row.id for row in acquire(sessions, Request, 60)] == [waiting]


def test_sweep__clock_that_runs_true__leaves_what_waits_alone(house: PoolHouse) -> None:
    (waiting,) = house.queue_stakes([1])
    with transaction(house.context.sessions) as session:
        session.execute(update(Request).values(next_run_at=func.now() + text("interval '1 hour'")))
    assert sweep.wake(house.context) == 0
    assert sweep.wake(house.context) == 0
    assert acquire(house.context.sessions, Request, 60, row_id=waiting) == []


def test_new_id__made_by_a_host_whose_clock_is_behind__still_comes_after_the_last() -> None:
    last = "ffffffff-ffff-7000-8000-000000000000"
    assert new_id() < last < new_id(last) < new_id(new_id(last))


def heartbeats(service: str, url: str) -> dict[str, float]:
    (collector,) = [path for path in COLLECTORS if path.name.startswith(service)]
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(metrics(collector)["staking_heartbeat_age_seconds"])
        found = dict(cursor.fetchall())
    connection.close()
    return found


def test_heartbeats__of_each_work__infinite_before_the_first_and_young_after_it(
    make_database: Callable[[str], str],
) -> None:
    url = make_database("pool")
    house = pool_house(url)
    works = {name for name in celeryconfig.beat_schedule if name != "relayer_pump"}
    assert heartbeats("pool", url) == dict.fromkeys(works, float("inf"))
    sweep.wake(house.context)
    for name in works - {"sweep"}:
        assert fires(house.context, name)
    assert max(heartbeats("pool", url).values()) < 600
    assert heartbeats("relayer", make_database("relayer")) == {"relayer_pump": float("inf")}
