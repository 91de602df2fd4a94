"""A database that takes no writes, has no room or is gone: 503 with `Retry-After`, the status says so, and all heals by
itself, in every service and on both ways to the database."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from apps.common.auth import HEADER
from apps.common.wire import new_id
from migrations import runner
from relayer import create_app as create_relayer
from tests.support.ledger import KEY as LEDGER_KEY
from tests.support.ledger import make_ledger
from tests.support.pool import pool_house
from tests.support.postgres import start_postgres
from tests.support.protocols import KEY
from tests.support.relayer import CUSTODY
from tests.support.relayer import make_settings as relayer_settings
from tests.support.rewards import make_house as make_rewards
from tests.support.rude_database import RudeDatabase, door, standby

Json = dict[str, Any]


@dataclass
class Service:
    """A service on a rude database: its status, a read through the ORM, and a write."""

    client: FlaskClient
    database: RudeDatabase
    key: str
    status_path: str
    read_path: str
    write_path: str
    body: Callable[[], Json]

    def database_ok(self) -> tuple[bool, int]:
        answer = self.client.get(self.status_path)
        return answer.get_json()["checks"]["database"]["ok"], answer.status_code

    def read(self) -> TestResponse:
        return self.client.get(self.read_path, headers={HEADER: self.key})

    def write(self) -> TestResponse:
        return self.client.post(self.write_path, json=self.body(), headers={HEADER: self.key})


def movement() -> Json:
    return {"message_id": new_id(), "kind": "deposit", "user_id": "ann", "amount_wei": "5"}


def accrual() -> Json:
    return {"message_id": new_id(), "pool_id": "eth_native", "new_rewards_wei": "5", "source": "test"}


def stake() -> Json:
    return {"message_id": new_id(), "user_id": "ann", "amount_wei": "5"}


def transfer() -> Json:
    return {"message_id": new_id(), "to": CUSTODY, "data": "0x", "value_wei": "5", "gas_limit": 21_000}


MAKE: dict[str, Callable[[str], tuple[FlaskClient, str, str, str, str, Callable[[], Json]]]] = {
    "ledger": lambda url: (
        make_ledger(url).client(), LEDGER_KEY, "/status/ledger", "/v1/balances/ann", "/v1/movements", movement,
    ),
    "rewards": lambda url: (
        make_rewards(url).client, KEY, "/status/rewards", "/v1/positions/ann", "/v1/accruals", accrual,
    ),
    "pool": lambda url: (
        pool_house(url).client(), KEY, "/status/pool", "/v1/requests", "/v1/stakes", stake,
    ),
    "relayer": lambda url: (
        create_relayer(relayer_settings(url, ("http://127.0.0.1:1",))).test_client(), "", "/healthz",
        "/v1/transactions", "/v1/transactions", transfer,
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(MAKE))
def service(request: pytest.FixtureRequest, make_database: Callable[[str], str]) -> Iterator[Service]:
    database = RudeDatabase(make_database(request.param))
    client, key, status, read, write, body = MAKE[request.param](database.url)
    found = Service(client, database, key, status, read, write, body)
    assert found.write().status_code < 500
    assert found.read().status_code == 200
    yield found
    database.kill_sessions()


@contextmanager
def newcomers_only(database: RudeDatabase) -> Iterator[None]:
    """A failover to a server that is not promoted yet."""
    with database.read_only_for_newcomers():
        database.kill_sessions()
        yield


FAULTS: dict[str, Callable[[RudeDatabase], AbstractContextManager[None]]] = {
    "read_only": RudeDatabase.read_only,
    "failed_over_to_a_standby": newcomers_only,
    "no_free_slots": RudeDatabase.no_slots,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_database__that_cannot_serve__503_until_it_can_and_then_the_next_call_succeeds(
    service: Service, fault: str
) -> None:
    with FAULTS[fault](service.database):
        for _ in range(3):
            refused = service.write()
            assert (refused.status_code, refused.get_json()["code"]) == (503, "database_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
        assert service.database_ok() == (False, 503)
        assert service.read().status_code in {200, 503}
    assert service.database_ok()[0]
    assert service.write().status_code < 500
    assert service.read().status_code == 200


def test_database__read_only_seen_by_the_status_alone__says_503_and_lets_its_connections_go(service: Service) -> None:
    with service.database.read_only():
        assert service.database_ok() == (False, 503)
    assert service.database_ok()[0]
    assert service.write().status_code < 500


def test_database__every_session_killed__at_most_one_503_and_no_other_status(service: Service) -> None:
    service.database.kill_sessions()
    assert service.write().status_code in {200, 201, 202, 503}
    assert service.write().status_code < 500
    assert service.read().status_code == 200


def test_database__sessions_killed_while_idle__no_caller_notices(service: Service) -> None:
    for call in (service.read, service.write):
        call()  # its connection is in the pool, and was used just now
        service.database.kill_sessions()
        assert call().status_code in {200, 201, 202}


def test_database__taken_back_after_new_sessions_were_read_only__no_connection_stays_so(service: Service) -> None:
    """Whoever connected meanwhile would keep "read-only" as its session's own setting for ever."""
    with newcomers_only(service.database):
        service.read()
        service.write()
    for _ in range(12):
        assert service.write().status_code < 500


def test_failover__to_a_standby_that_is_promoted_later__503_until_then_and_the_books_go_on() -> None:
    with start_postgres() as server:
        url = server.create("ledger")
        runner.upgrade("ledger", url)
        with standby(server) as other, door(url) as way:
            ledger = make_ledger(way.url(url))
            first = movement()
            assert ledger.post("/v1/movements", first).status_code == 201
            wait_for_replay(server.url("postgres"), other)
            way.lead_to(urlsplit(other).port or 0)
            for _ in range(3):
                refused = ledger.post("/v1/movements", movement())
                assert (refused.status_code, refused.get_json()["code"]) == (503, "database_unavailable")
            assert ledger.client().get("/status/ledger").status_code == 503
            run(other, "SELECT pg_promote()")
            assert ledger.client().get("/status/ledger").status_code == 200
            again = ledger.post("/v1/movements", first)  # its effect came over: a replay, not a second one
            assert (again.status_code, again.headers["Idempotent-Replay"]) == (200, "true")
            assert ledger.post("/v1/movements", movement()).status_code == 201
            way.shut()
            assert ledger.post("/v1/movements", movement()).status_code == 503
            way.lead_to(urlsplit(other).port or 0)
            assert ledger.post("/v1/movements", movement()).status_code == 201
            ledger.assert_books_agree()
            assert int(ledger.read("/v1/balances/ann")["available_wei"]) == 15


def run(url: str, statement: str) -> Any:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
        (value,) = cursor.fetchall()[0]
    connection.close()
    return value


def wait_for_replay(primary: str, other: str) -> None:
    written = run(primary, "SELECT pg_current_wal_lsn()::text")
    deadline = time.monotonic() + 60
    while not run(other, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"):
        assert time.monotonic() < deadline, "the standby does not follow"
