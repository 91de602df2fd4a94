"""What every flow stands on: claims, leases, lanes, the sweep and schedules, with many workers at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update

from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.flow.lanes import LaneBusy, lanes
from apps.flow.lease import LeaseLost, acquire
from apps.flow.outcome import Advance, BackOff, Outcome, Park, Wait
from apps.flow.runner import MAX_ATTEMPTS, run, write
from apps.pool import sweep
from apps.pool.flows.requests import RequestFlow
from apps.pool.models import FlowEvent, Request, ScheduleFire, UserLane
from tasks.entry import fires
from tests.support.pool import PoolHouse
from tests.support.protocols import KEY, POOL

WORKERS = 8
LATER = {"code": "later", "detail": ""}


class Failing(RequestFlow):
    """Its step fails, for a reason that no flow has foreseen."""

    def step(self, row: Request) -> Outcome:
        raise RuntimeError("word of a secret")


def due(house: PoolHouse, count: int) -> list[str]:
    return house.queue_stakes([ETHER] * count, next_run_at=func.now())


def expire(house: PoolHouse, request_id: str) -> None:
    """Let a lease's time be over, as if its worker had been frozen for long."""
    with transaction(house.context.sessions) as session:
        session.execute(update(Request).where(Request.id == request_id).values(lease_until=func.now()))


def row_of(house: PoolHouse, request_id: str) -> Request:
    with transaction(house.context.sessions) as session:
        return session.scalars(select(Request).where(Request.id == request_id)).one()


def test_acquire__many_workers__every_due_row_once(house: PoolHouse) -> None:
    ids = due(house, 60)
    barrier = threading.Barrier(WORKERS)

    def work(_: int) -> list[str]:
        barrier.wait()
        taken: list[str] = []
        while rows := acquire(house.context.sessions, Request, 60, limit=3):
            taken += [row.id for row in rows]
        return taken

    with ThreadPoolExecutor(WORKERS) as threads:
        taken = [request_id for found in threads.map(work, range(WORKERS)) for request_id in found]
    # A worker that finds only locked rows stops early; what it left is free for the next.
    taken += [row.id for row in acquire(house.context.sessions, Request, 60, limit=100)]
    assert sorted(taken) == sorted(ids)
    assert {row_of(house, request_id).attempts for request_id in ids} == {1}


def test_acquire__leased_row__not_given_out_until_the_lease_is_over(house: PoolHouse) -> None:
    (request_id,) = due(house, 1)
    (first,) = acquire(house.context.sessions, Request, 60)
    assert acquire(house.context.sessions, Request, 60, row_id=request_id) == []
    expire(house, request_id)
    (second,) = acquire(house.context.sessions, Request, 60)
    assert (second.id, second.attempts, second.lease_token == first.lease_token) == (request_id, 2, False)


def test_checkpoint__lease_taken_over__nothing_is_written(house: PoolHouse) -> None:
    (request_id,) = due(house, 1)
    (frozen,) = acquire(house.context.sessions, Request, 60)
    expire(house, request_id)
    (taker,) = acquire(house.context.sessions, Request, 60)
    flow = RequestFlow(house.context)
    late: tuple[Outcome, ...] = (Advance("cancelled", run_in_sec=None), Wait(1), BackOff("late"), Park(LATER))
    for outcome in late:
        with pytest.raises(LeaseLost):
            write(flow, frozen, outcome)
    now = row_of(house, request_id)
    assert (now.status, now.lease_token, now.last_error) == ("queued", taker.lease_token, None)
    with transaction(house.context.sessions) as session:
        assert session.scalar(select(func.count()).select_from(FlowEvent)) == 0
    write(flow, taker, Advance("cancelled", run_in_sec=None))
    ended = row_of(house, request_id)
    assert (ended.status, ended.lease_token, ended.next_run_at, ended.attempts) == ("cancelled", None, None, 0)


def test_wait__nothing_to_do_yet__uses_up_no_attempt(house: PoolHouse) -> None:
    (request_id,) = due(house, 1)
    for _ in range(3):
        (row,) = acquire(house.context.sessions, Request, 60, row_id=request_id, early=True)
        write(RequestFlow(house.context), row, Wait(60.0, LATER))
    found = row_of(house, request_id)
    assert (found.attempts, found.reason) == (0, LATER)
    assert acquire(house.context.sessions, Request, 60) == []


def test_back_off__fault_after_fault__delay_doubles_up_to_the_cap_and_attempts_run_out(house: PoolHouse) -> None:
    (request_id,) = due(house, 1)
    flow = Failing(house.context)
    delays = []
    while True:
        (row,) = acquire(house.context.sessions, Request, 60, row_id=request_id, early=True)
        if isinstance(run(flow, row), Park):
            break
        with transaction(house.context.sessions) as session:
            wait_sec = func.extract("epoch", Request.next_run_at - FlowEvent.created_at)
            latest = select(wait_sec).join(FlowEvent, FlowEvent.subject_id == Request.id).order_by(FlowEvent.id.desc())
            delays.append(float(str(session.scalar(latest.limit(1)))))
    assert row.attempts == MAX_ATTEMPTS
    for number, delay in enumerate(delays, 1):
        full = min(60.0, 0.5 * 2**number)
        assert full / 2 - 0.1 <= delay <= full + 0.1
    ended = row_of(house, request_id)
    assert (ended.status, ended.parked_status, ended.next_run_at) == ("needs_attention", "queued", None)
    assert ended.reason == {"code": "attempts_exhausted", "detail": "unforeseen RuntimeError"}


def test_lanes__one_user_taken__all_or_none_and_free_afterwards(house: PoolHouse) -> None:
    sessions = house.context.sessions
    with lanes(sessions, UserLane, POOL, ["ann"], 60):
        with pytest.raises(LaneBusy), lanes(sessions, UserLane, POOL, ["bob", "ann"], 60):
            pass
        with lanes(sessions, UserLane, POOL, ["bob"], 60):  # was not kept by the one that failed
            pass
        with lanes(sessions, UserLane, "another_pool", ["ann"], 60):
            pass
    with lanes(sessions, UserLane, POOL, ["ann"], 0.0), lanes(sessions, UserLane, POOL, ["ann"], 60):
        pass  # a lane whose time is up is free


def test_sweep__due_and_abandoned_rows__one_hint_for_all_of_a_kind(house: PoolHouse) -> None:
    assert sweep.wake(house.context) == 0
    ids = due(house, 2)
    assert sweep.wake(house.context) == 1
    assert house.hints == [("tasks.requests.advance", None)]
    assert len(acquire(house.context.sessions, Request, 60, limit=10)) == 2
    assert sweep.wake(house.context) == 0, "workers have them"
    expire(house, ids[0])
    assert sweep.wake(house.context) == 1, "its worker is dead"


def test_fires__two_beats_in_one_interval__one_firing(house: PoolHouse) -> None:
    barrier = threading.Barrier(WORKERS)

    def beat(_: int) -> bool:
        barrier.wait()
        return bool(fires(house.context, "reconciliation"))

    with ThreadPoolExecutor(WORKERS) as threads:
        fired = list(threads.map(beat, range(WORKERS)))
    with transaction(house.context.sessions) as session:
        rows = session.scalar(select(func.count()).select_from(ScheduleFire))
    # The interval is an hour; should its end fall between two of the beats, each of both hours has fired once.
    assert sum(fired) == rows
    assert rows in {1, 2}
    assert fires(house.context, None)


@pytest.mark.parametrize(("act", "status"), [("cancel", "queued"), ("retry", "needs_attention")])
def test_cancel_or_retry__request_of_a_later_release__refused_and_left_as_it_is(
    house: PoolHouse, act: str, status: str
) -> None:
    (made,) = house.queue_stakes([ETHER], flow_version=Request.current_version + 1, status=status)
    answer = house.client().post(f"/v1/requests/{made}/{act}", json={}, headers={HEADER: KEY})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "later_release")
    with transaction(house.context.sessions) as session:
        found = session.get_one(Request, made)
    assert (found.status, found.intent, found.lease_token, found.next_run_at) == (status, None, None, None)
