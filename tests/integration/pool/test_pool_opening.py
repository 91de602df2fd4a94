"""A POST in two statements: what each of them makes, and that whatever is out of the ordinary goes the general way."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, text, update

from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from apps.flow.lanes import lanes
from apps.flow.lease import acquire
from apps.pool.feed import number_events
from apps.pool.flows.limits import Cap
from apps.pool.flows.requests import advance, run_opened
from apps.pool.models import FlowEvent, Request, RequestEvent, UserLane
from apps.pool.opening import Opened, begun, open_request
from apps.pool.states import RequestKind
from tests.support.pgproxy import Fate, Proxy, proxied
from tests.support.pool import FullHouse, PoolHouse, full_house, pool_house
from tests.support.protocols import KEY, POOL, serving

STAKE = {"message_id": "s:1", "user_id": "ann", "amount_wei": str(ETHER)}
BODY = {"kind": "stake", "user_id": "ann", "pool_id": POOL, "amount_wei": str(ETHER)}


def post(house: PoolHouse, body: dict[str, str] = STAKE, path: str = "/v1/stakes") -> Any:
    return house.client().post(path, json=body, headers={HEADER: KEY})


def row_of(house: PoolHouse, request_id: str) -> Request:
    with transaction(house.context.sessions) as session:
        return session.scalars(select(Request).where(Request.id == request_id)).one()


def lanes_held(house: PoolHouse) -> list[str]:
    with transaction(house.context.sessions) as session:
        return list(session.scalars(select(UserLane.holder)))


def feed(house: PoolHouse) -> list[tuple[int, str]]:
    """Every event: its number and the status that it tells of."""
    number_events(house.context.sessions)
    with transaction(house.context.sessions) as session:
        found = session.execute(select(RequestEvent.sequence, RequestEvent.status).order_by(RequestEvent.sequence))
        return [(number, status) for number, status in found]


def history(house: PoolHouse, request_id: str) -> list[tuple[str, str, int]]:
    with transaction(house.context.sessions) as session:
        wanted = select(FlowEvent.type, FlowEvent.status, FlowEvent.attempt).order_by(FlowEvent.id)
        lines = session.execute(wanted.where(FlowEvent.subject_id == request_id))
        return [(kind, status, attempt) for kind, status, attempt in lines]


def end_pauses(house: PoolHouse) -> None:
    """Let leases, lanes and pauses be over, as if their time had passed."""
    with transaction(house.context.sessions) as session:
        session.execute(update(Request).where(Request.lease_token.is_not(None)).values(lease_until=func.now()))
        session.execute(update(Request).where(Request.next_run_at.is_not(None)).values(next_run_at=func.now()))
        session.execute(update(UserLane).values(held_until=func.now()))


@contextmanager
def house_behind(make_database: Callable[[str], str]) -> Iterator[tuple[FullHouse, PoolHouse, Proxy]]:
    """A pool with its books, and the same pool behind a line that can be cut."""
    with full_house(make_database) as full, proxied(full.pool.context.settings.database_url) as line:
        settings = full.pool.context.settings
        urls = {"ledger_url": settings.ledger_url, "rewards_url": settings.rewards_url}
        behind = pool_house(normalise_database_url(line.url), **urls)
        full.deposit("bob", ETHER)
        assert post(behind, {**STAKE, "message_id": "warm", "user_id": "bob"}).status_code == 201
        full.deposit("ann", 3 * ETHER)
        line.statements.clear()
        yield full, behind, line


def test_stake__all_in_order__is_two_statements(make_database: Callable[[str], str]) -> None:
    with house_behind(make_database) as (_, behind, line):
        made = post(behind)
        assert (made.status_code, made.get_json()["status"]) == (201, "queued")
        assert [text.split("(")[0] for text in line.statements if text != "SELECT 1"] == [
            "SELECT * FROM open_request",
            "SELECT * FROM close_opening",
        ]
        found = row_of(behind, made.get_json()["id"])
        assert (found.attempts, found.lease_token, found.next_run_at, lanes_held(behind)) == (0, None, None, [])
        assert history(behind, found.id) == [("created", "reserving", 1), ("checkpoint", "queued", 1)]


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.LOSE])
@pytest.mark.parametrize("statement", ["open_request", "close_opening"])
def test_stake__whose_line_is_cut_around_a_statement__is_made_once_without_the_caller_noticing(
    make_database: Callable[[str], str], statement: str, fate: Fate
) -> None:
    with house_behind(make_database) as (full, behind, line):
        left = [1]

        def decide(text: str) -> Fate:
            if statement not in text or not left:
                return Fate.PASS
            left.pop()
            return fate

        line.decide = decide
        made = post(behind)
        assert (made.status_code, made.get_json()["status"], left) == (201, "queued", [])
        assert [entry["status"] for entry in made.get_json()["timeline"]] == ["reserving", "queued"]
        assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)
        assert feed(behind)[2:] == [(3, "reserving"), (4, "queued")]
        assert lanes_held(behind) == []
        again = post(behind)
        assert (again.status_code, again.get_json()) == (200, made.get_json())


def test_stake__lane_held_by_another_step__waits_its_turn_and_leaves_the_lane_alone(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    with lanes(full.pool.context.sessions, UserLane, POOL, ["ann"], 60):
        held = lanes_held(full.pool)
        made = full.post("/v1/stakes", STAKE).get_json()
        assert (made["status"], full.balance("ann")) == ("reserving", (3 * ETHER, 0, 0, 0))
        assert lanes_held(full.pool) == held
        waiting = row_of(full.pool, made["id"])
        assert (waiting.attempts, waiting.lease_token) == (0, None)
    end_pauses(full.pool)
    assert advance(full.pool.context, made["id"]) == 1
    assert full.get(f"/v1/requests/{made['id']}")["status"] == "queued"


def test_stakes__of_one_user_at_once__each_reserved_once_and_the_feed_without_gaps(full: FullHouse) -> None:
    full.deposit("ann", 10 * ETHER)
    barrier = threading.Barrier(8)

    def ask(number: int) -> tuple[int, str]:
        client = full.pool.client()
        barrier.wait()
        answer = client.post("/v1/stakes", json={**STAKE, "message_id": f"s:{number}"}, headers={HEADER: KEY})
        return answer.status_code, answer.get_json()["id"]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert {status for status, _ in answers} == {201}
    while {row_of(full.pool, request_id).status for _, request_id in answers} != {"queued"}:
        end_pauses(full.pool)
        advance(full.pool.context)
    assert full.balance("ann") == (2 * ETHER, 8 * ETHER, 0, 0)
    assert lanes_held(full.pool) == []
    told = feed(full.pool)
    assert [number for number, _ in told] == list(range(1, 17))
    assert sorted(status for _, status in told) == ["queued"] * 8 + ["reserving"] * 8


def test_stake__that_waits_for_its_users_lane__holds_up_nobody_elses(full: FullHouse) -> None:
    """What a POST locks, it locks of its own user."""
    for user in ("ann", "bob"):
        full.deposit(user, ETHER)
    sessions = full.pool.context.sessions
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(1) as threads:
        with transaction(sessions) as session:
            session.add(UserLane(scope=POOL, name="ann", holder="other", held_until=func.now()))
            session.flush()
            first = threads.submit(post, full.pool)
            deadline = time.monotonic() + 60
            while True:
                with transaction(sessions) as looking:
                    if looking.scalar(waits):
                        break
                assert time.monotonic() < deadline, "the first stake never came to wait"
            other = post(full.pool, {**STAKE, "message_id": "s:2", "user_id": "bob"})
            assert (other.status_code, other.get_json()["status"], first.done()) == (201, "queued", False)
            session.rollback()
        assert first.result(60).get_json()["status"] == "queued"
    assert [number for number, _ in feed(full.pool)] == [1, 2, 3, 4]


@contextmanager
def failing() -> Iterator[tuple[str, list[str]]]:
    """A ledger that has an error for every call; its address, and the calls."""
    app, calls = Flask("failing"), []

    @app.post("/v1/movements")
    def fail() -> tuple[dict[str, str], int]:
        calls.append("movement")
        return {"code": "internal_error"}, 500

    with serving(app) as url:
        yield url, calls


@contextmanager
def silent() -> Iterator[tuple[str, list[str]]]:
    """A ledger that takes every call and says nothing; its address, and a call that cannot be counted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", ["movement"]


@contextmanager
def away() -> Iterator[tuple[str, list[str]]]:
    yield "http://127.0.0.1:1", ["movement"]


@pytest.mark.parametrize("ledger", [failing, silent, away])
def test_stake__ledger_that_fails__is_asked_once_and_the_flow_finishes_the_request(
    full: FullHouse, ledger: Callable[[], Any]
) -> None:
    full.deposit("ann", 3 * ETHER)
    url = full.pool.context.settings.database_url
    with ledger() as (ledger_url, calls):
        made = post(pool_house(url, ledger_url=ledger_url, http_timeout_sec=0.5))
        assert (made.status_code, made.get_json()["status"], calls) == (201, "reserving", ["movement"])
    request_id = made.get_json()["id"]
    found = row_of(full.pool, request_id)
    assert (found.lease_token, lanes_held(full.pool), found.attempts) == (None, [], 1)
    assert "ledger" in (found.last_error or "")
    assert history(full.pool, request_id) == [("created", "reserving", 1), ("failed_attempt", "reserving", 1)]
    again = full.post("/v1/stakes", STAKE)
    assert (again.status_code, again.get_json()) == (200, made.get_json())
    end_pauses(full.pool)
    assert advance(full.pool.context, request_id) == 1
    assert full.get(f"/v1/requests/{request_id}")["status"] == "queued"
    assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)
    assert feed(full.pool) == [(1, "reserving"), (2, "queued")]


def opened(house: PoolHouse, message_id: str = "s:1") -> Opened | None:
    named = {"message_id": message_id, "kind": "stake", "user_id": "ann", "pool_id": POOL}
    row = Request(**named, body=BODY, amount_wei=ETHER, **begun(RequestKind.STAKE))
    return open_request(house.context.writer, row, 60.0)


def test_open__while_the_first_is_under_way__a_replay_as_it_stands(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    first = opened(full.pool)
    assert first is not None and first.has_lane
    again = full.post("/v1/stakes", STAKE)
    assert (again.status_code, again.get_json()["status"], again.get_json()["id"]) == (200, "reserving", first.row.id)
    assert run_opened(full.pool.context, first)
    assert full.post("/v1/stakes", STAKE).get_json()["status"] == "queued"
    assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)


def test_close__lease_taken_over_meanwhile__nothing_of_it_is_written(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    frozen = opened(full.pool)
    assert frozen is not None
    end_pauses(full.pool)
    (taker,) = acquire(full.pool.context.sessions, Request, 60, row_id=frozen.row.id)
    assert not run_opened(full.pool.context, frozen)
    found = row_of(full.pool, taker.id)
    assert (found.status, found.lease_token) == ("reserving", taker.lease_token)
    assert feed(full.pool) == [(1, "reserving")]
    assert history(full.pool, taker.id)[-1] == ("lease_lost", "reserving", 1)


def test_stake__above_a_limit_that_has_fallen_since__its_replay_is_answered_all_the_same(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    made = full.post("/v1/stakes", STAKE)
    service = full.client.application.extensions["service"]
    service._cap = (float("inf"), Cap(ETHER - 1, "stake_above_cap", ""))
    assert full.post("/v1/stakes", {**STAKE, "message_id": "s:2"}).status_code == 422
    again = full.post("/v1/stakes", STAKE)
    assert (again.status_code, again.get_json()) == (200, made.get_json())
