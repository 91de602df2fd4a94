"""A real ledger for tests: the app on a database of its own, its HTTP face, and direct connections beside it."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from apps.common.auth import HEADER
from apps.common.settings import normalise_database_url
from apps.ledger import create_app
from apps.ledger.settings import LedgerSettings

KEY = "a-key-of-the-tests"
POOL = "eth_native"
BUCKETS = ("available_wei", "reserved_wei", "staked_wei", "unstaking_wei")


@dataclass
class LedgerHouse:
    """One ledger. `client()` gives each thread a client of its own."""

    app: Flask
    database_url: str
    names: Iterator[int] = field(default_factory=itertools.count)

    def client(self) -> FlaskClient:
        return self.app.test_client()

    def post(self, path: str, body: Any) -> TestResponse:
        return self.client().post(path, json=body, headers={HEADER: KEY})

    def get(self, path: str, **query: Any) -> TestResponse:
        given = {name: value for name, value in query.items() if value is not None}
        return self.client().get(path, query_string=given, headers={HEADER: KEY})

    def read(self, path: str, **query: Any) -> dict[str, Any]:
        """GET what must succeed."""
        answer = self.get(path, **query)
        assert answer.status_code == 200, answer.get_json()
        body: dict[str, Any] = answer.get_json()
        return body

    def move(self, kind: str, wei: int, user: str | None = None, **values: Any) -> dict[str, Any]:
        """Post a movement that must succeed, under a name of its own unless one is given."""
        answer = self.post("/v1/movements", self.body(kind, wei, user, **values))
        assert answer.status_code == 201, answer.get_json()
        body: dict[str, Any] = answer.get_json()
        return body

    def body(self, kind: str, wei: int, user: str | None = None, **values: Any) -> dict[str, Any]:
        named = {"message_id": f"test:{next(self.names)}", "kind": kind, "user_id": user, "amount_wei": str(wei)}
        return {**named, **values}

    def batch(self, movements: Sequence[dict[str, Any]]) -> TestResponse:
        return self.post("/v1/movements/batch", {"movements": movements})

    def system(self) -> dict[str, int]:
        """Signed wei of the system accounts that hold or owe anything."""
        return {name: int(wei) for name, wei in self.read("/v1/totals")["system"].items() if wei != "0"}

    def buckets(self, user: str, **query: Any) -> tuple[int, ...]:
        """available, reserved, staked, unstaking."""
        balance = self.read(f"/v1/balances/{user}", **query)
        return tuple(int(balance[name]) for name in BUCKETS)

    def pages(self, limit: int = 200, **query: Any) -> list[dict[str, Any]]:
        """All movements, page by page."""
        items: list[dict[str, Any]] = []
        after = None
        while True:
            answer = self.read("/v1/movements", limit=limit, after=after, **query)
            items.extend(answer["items"])
            after = answer["next"]
            if after is None:
                return items

    def differences(self, pool_id: str = POOL, *, full: bool = True) -> set[tuple[str, str]]:
        """Subject and field of each difference that an audit finds, a full one or one of what is new."""
        answer = self.post("/v1/audits", {"pool_id": pool_id, "full": full})
        assert answer.status_code == 201, answer.get_json()
        body = answer.get_json()
        assert body["ok"] == (not body["differences"])
        return {(row["subject"], row["field"]) for row in body["differences"]}

    def assert_books_agree(self, pool_id: str = POOL) -> None:
        assert self.differences(pool_id) == set()
        assert self.read("/v1/totals", pool_id=pool_id)["sum_wei"] == "0"

    @contextmanager
    def connection(self, *, autocommit: bool = True) -> Iterator[Any]:
        """A connection of the tables' owner."""
        connection = psycopg2.connect(self.database_url, connect_timeout=10)
        connection.autocommit = autocommit
        try:
            yield connection
        finally:
            connection.close()

    def sql(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []


def wait_until_blocked(ledger: LedgerHouse) -> None:
    """Until a session of the ledger's database waits for a lock."""
    deadline = time.monotonic() + 60
    query = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND datname = %s"
    (name,) = ledger.sql("SELECT current_database()")[0]
    while ledger.sql(query, (name,))[0][0] == 0:
        assert time.monotonic() < deadline, "nobody came to wait"


def make_ledger(database_url: str) -> LedgerHouse:
    return LedgerHouse(create_app(ledger_settings(database_url)), database_url)


def ledger_settings(database_url: str) -> LedgerSettings:
    return LedgerSettings(
        app_env="test",
        http_port=8101,
        internal_keys=(KEY,),
        database_url=normalise_database_url(database_url),
        pool_id=POOL,
    )


@pytest.fixture
def ledger(make_database: Callable[[str], str]) -> LedgerHouse:
    return make_ledger(make_database("ledger"))
