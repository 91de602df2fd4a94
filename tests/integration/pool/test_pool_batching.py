"""Batches: whole requests, oldest first, each in one batch, however many workers open them at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text, update

from apps.clients.protocols import ProtocolsClient
from apps.clients.shapes.protocols import LidoState
from apps.common.database import one_of, transaction
from apps.common.wei import ETHER
from apps.flow.row import reason
from apps.pool.feed import change_requests, number_events
from apps.pool.flows.batching import open_batches, open_due_batches
from apps.pool.look import Look
from apps.pool.models import Batch, FeedCounter, Request, RequestEvent, Walk
from tests.support.pool import PoolHouse, lido_state
from tests.support.protocols import POOL


def batches(house: PoolHouse) -> dict[str, list[str]]:
    """Request ids by batch, both oldest first."""
    with transaction(house.context.sessions) as session:
        found: dict[str, list[str]] = {row: [] for row in session.scalars(select(Batch.id).order_by(Batch.id))}
        for request in session.scalars(select(Request).where(Request.batch_id.is_not(None)).order_by(Request.id)):
            found[str(request.batch_id)].append(request.id)
        for batch in session.scalars(select(Batch)):
            amounts = session.scalar(
                text("SELECT coalesce(sum(amount_wei), 0) FROM requests WHERE batch_id = :id"), {"id": batch.id}
            )
            assert (batch.request_count, batch.amount_wei) == (len(found[batch.id]), int(str(amounts)))
        return found


def reasons(house: PoolHouse) -> set[str | None]:
    with transaction(house.context.sessions) as session:
        return {None if row.reason is None else str(row.reason["code"]) for row in session.scalars(select(Request))}


def age(house: PoolHouse, seconds: int) -> None:
    with transaction(house.context.sessions) as session:
        session.execute(update(Request).values(queued_at=Request.queued_at - text(f"interval '{seconds} seconds'")))


def test_open__below_threshold_and_young__nothing(house: PoolHouse) -> None:
    house.queue_stakes([ETHER] * 9)
    assert open_batches(house.context, POOL, lido_state()) == 0
    assert batches(house) == {}


def test_open__threshold_reached__one_batch_of_all_oldest_first(house: PoolHouse) -> None:
    ids = house.queue_stakes([ETHER] * 12)
    assert open_batches(house.context, POOL, lido_state()) == 1
    ((batch_id, members),) = batches(house).items()
    assert members == ids
    assert ("tasks.batches.advance", batch_id) in house.hints


def test_open__oldest_waited_long_enough__a_small_batch(house: PoolHouse) -> None:
    ids = house.queue_stakes([ETHER, 2 * ETHER])
    age(house, 301)
    assert open_batches(house.context, POOL, lido_state()) == 1
    assert list(batches(house).values()) == [ids]


def test_open__many_workers_while_requests_arrive__every_request_in_one_batch(house: PoolHouse) -> None:
    workers, per_writer = 8, 30
    barrier = threading.Barrier(workers + 2)
    made: list[str] = []

    def write() -> None:
        barrier.wait()
        for _ in range(per_writer):
            made.extend(house.queue_stakes([3 * ETHER]))

    def work() -> int:
        barrier.wait()
        return sum(open_batches(house.context, POOL, lido_state()) for _ in range(25))

    with ThreadPoolExecutor(workers + 2) as threads:
        writers = [threads.submit(write) for _ in range(2)]
        opened = [threads.submit(work) for _ in range(workers)]
        for writer in writers:
            writer.result()
        total = sum(worker.result() for worker in opened)
    age(house, 301)
    total += open_batches(house.context, POOL, lido_state())
    found = batches(house)
    assert len(found) == total
    assert sorted(request for members in found.values() for request in members) == sorted(made)
    assert len(made) == 2 * per_writer


def test_open__stake_limit__whole_requests_that_fit_and_the_rest_waits(house: PoolHouse) -> None:
    ids = house.queue_stakes([4 * ETHER, 4 * ETHER, 4 * ETHER, ETHER])
    assert open_batches(house.context, POOL, lido_state(9 * ETHER)) == 1
    assert list(batches(house).values()) == [ids[:2]]  # the small one does not overtake the third
    # What the open batch has not submitted yet uses up the same limit.
    age(house, 301)
    assert open_batches(house.context, POOL, lido_state(9 * ETHER)) == 0
    assert reasons(house) == {None, "stake_limit"}


@pytest.mark.parametrize(
    ("switch", "code"), [("staking_paused", "staking_paused"), ("stopped", "protocol_stopped"), ("queue_paused", None)]
)
def test_open__switch_off__stakes_wait_with_the_reason_in_the_timeline(
    house: PoolHouse, switch: str, code: str | None
) -> None:
    house.queue_stakes([20 * ETHER])
    opened = [open_batches(house.context, POOL, lido_state(**{switch: True})) for _ in range(3)]
    with transaction(house.context.sessions) as session:
        noted = session.scalars(text("SELECT reason ->> 'code' FROM unnumbered_events WHERE reason IS NOT NULL")).all()
    if code is None:  # the withdrawal queue's pause is no matter of stakes
        assert (opened, noted) == ([1, 0, 0], [])
    else:
        assert (opened, noted, reasons(house)) == ([0, 0, 0], [code], {code})  # said once, not at every look
        assert open_batches(house.context, POOL, lido_state()) == 1
        assert reasons(house) == {None}


def test_open__paused_after_a_drift__nothing_until_resumed(house: PoolHouse) -> None:
    house.queue_stakes([20 * ETHER])
    with transaction(house.context.sessions) as session:
        session.add(Walk(id=POOL, status="walking", batches_paused={"code": "drift", "detail": ""}))
    assert open_batches(house.context, POOL, lido_state()) == 0
    assert reasons(house) == {"batches_paused"}
    with transaction(house.context.sessions) as session:
        session.execute(update(Walk).values(batches_paused=None))
    assert open_batches(house.context, POOL, lido_state()) == 1


def test_open__unstakes__at_most_a_hundred_elements_and_one_batch_at_a_time(house: PoolHouse) -> None:
    big = house.queue_stakes([2500 * ETHER], kind="unstake")  # three elements
    small = house.queue_stakes([ETHER] * 99, kind="unstake")
    assert open_batches(house.context, POOL, lido_state()) == 1
    assert list(batches(house).values()) == [big + small[:97]]
    assert open_batches(house.context, POOL, lido_state()) == 0
    with transaction(house.context.sessions) as session:
        session.execute(update(Batch).values(status="failed"))
    age(house, 301)
    assert open_batches(house.context, POOL, lido_state()) == 1
    assert sorted(map(len, batches(house).values())) == [2, 98]


def test_open__cancel_asked_for__the_request_is_left_out(house: PoolHouse) -> None:
    house.queue_stakes([20 * ETHER], intent="cancel")
    assert open_batches(house.context, POOL, lido_state()) == 0
    with transaction(house.context.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Batch)) == 0


class CountedProtocols(ProtocolsClient):
    """Lido as it is always, and how often it was asked for."""

    asked = 0

    def state(self, block: int | None = None) -> LidoState:
        self.asked += 1
        return lido_state()


def test_open_due__looked_again_and_again__asks_lido_once_until_a_batch_is_due(house: PoolHouse) -> None:
    protocols = CountedProtocols("http://127.0.0.1:1", "")
    context = replace(house.context, protocols=protocols, look=Look(3600.0))
    assert (open_due_batches(context), protocols.asked) == (0, 0)
    house.queue_stakes([ETHER] * 9)
    assert [open_due_batches(context) for _ in range(5)] == [0] * 5
    assert protocols.asked == 1
    house.queue_stakes([ETHER])
    assert (open_due_batches(context), protocols.asked) == (1, 2)


def test_change_requests__some_and_none__one_event_each_without_a_gap(house: PoolHouse) -> None:
    ids = house.queue_stakes([ETHER] * 5)
    number_events(house.context.sessions)
    why = reason("staking_paused", "Paused.")
    with transaction(house.context.sessions) as session:
        before = session.scalar(select(FeedCounter.last_sequence)) or 0
        assert change_requests(session, one_of(Request.id, ids[:3]), reason=why) == 3
        assert change_requests(session, one_of(Request.id, []), reason=None) == 0
        assert change_requests(session, one_of(Request.id, ids[2:]), status="batched", reason=None) == 3
    number_events(house.context.sessions)
    with transaction(house.context.sessions) as session:
        events = session.execute(
            select(RequestEvent.sequence, RequestEvent.request_id, RequestEvent.status, RequestEvent.reason)
            .where(RequestEvent.sequence > before)
            .order_by(RequestEvent.sequence)
        ).all()
        last = session.scalar(select(FeedCounter.last_sequence))
    assert [row.sequence for row in events] == list(range(before + 1, before + 7))
    assert last == before + 6
    told = [(row.request_id, row.status, row.reason) for row in events]
    assert told == [(row, "queued", why) for row in ids[:3]] + [(row, "batched", None) for row in ids[2:]]
