"""Protocols in this process, on a real node and a real database; the ledger beside it answers real HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import WSGIRequestHandler, make_server

from apps.clients.ledger import LedgerClient, movement
from apps.common.auth import HEADER
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from apps.ledger import create_app as create_ledger
from apps.ledger.settings import LedgerSettings
from apps.protocols import create_app
from apps.protocols.settings import ProtocolsSettings
from tests.support.lido import Desk

KEY = "test-key"
POOL = "eth_native"
NOBODY = "http://127.0.0.1:1"


@dataclass(frozen=True)
class House:
    """One protocols service and its caller."""

    desk: Desk
    database_url: str
    client: FlaskClient

    def ask(self, path: str, **query: Any) -> Any:
        """GET; returns the response."""
        return self.client.get(path, query_string=query, headers={HEADER: KEY})

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """GET what must succeed; returns the body."""
        answer = self.ask(path, **query)
        assert answer.status_code == 200, answer.get_json()
        body: dict[str, Any] = answer.get_json()
        return body

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.client.post(path, json=body, headers={HEADER: KEY})

    def build(self, name: str, **body: Any) -> dict[str, Any]:
        """Build a transaction that must be built."""
        answer = self.post(f"/v1/lido/transactions/{name}", body)
        assert answer.status_code == 200, answer.get_json()
        built: dict[str, Any] = answer.get_json()
        return built

    def refusal(self, name: str, **body: Any) -> tuple[int, str]:
        """Status and code of a transaction that must be refused."""
        answer = self.post(f"/v1/lido/transactions/{name}", body)
        assert answer.content_type == "application/problem+json", answer.get_json()
        return answer.status_code, answer.get_json()["code"]

    def history(self, **query: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("/v1/lido/history", **query)["items"]
        return items


def live_a_life(desk: Desk) -> None:
    """Every kind of item, with what other users do in between."""
    desk.submit(desk.operator, 100 * ETHER)
    desk.oracle.stranger_submit(50 * ETHER)
    desk.oracle.rebase(10 * ETHER)
    desk.oracle.stranger_transfer(desk.operator, 3 * ETHER)
    first, second = desk.request(desk.operator, [7 * ETHER, 5 * ETHER])
    desk.oracle.rebase(-40 * ETHER, finalize_up_to=first)
    desk.claim(desk.operator, [first], desk.custody)
    desk.do(desk.lido.transfer(desk.user, 2 * ETHER), desk.operator)
    desk.oracle.rebase(ETHER, finalize_up_to=second)


LIFE = ["submit", "rebase", "foreign_in", "request", "request", "rebase", "claim", "foreign_out", "rebase"]


def make_house(desk: Desk, database_url: str, **changes: Any) -> House:
    app = create_app(make_settings(desk, database_url, **changes))
    return House(desk, database_url, app.test_client())


def make_settings(desk: Desk, database_url: str, **changes: Any) -> ProtocolsSettings:
    """Settings that read up to the chain's head: depth 1."""
    values: dict[str, Any] = {
        "app_env": "test",
        "http_port": 8102,
        "internal_keys": (KEY,),
        "database_url": normalise_database_url(database_url),
        "pool_id": POOL,
        "rpc_urls": (desk.rpc_url,),
        "rpc_timeout_sec": 20.0,
        "ledger_url": NOBODY,
        "http_timeout_sec": 20.0,
        "custody_address": desk.custody,
        "operator_address": desk.operator,
        "steth_address": desk.deployment.steth,
        "withdrawal_queue_address": desk.deployment.withdrawal_queue,
        "confirmations": 1,
        "money_horizon": None,
        "chain_id": None,
        "start_block": None,
        "log_range_blocks": 10_000,
    }
    return ProtocolsSettings(**{**values, **changes})


@dataclass(frozen=True)
class Books:
    """A running ledger."""

    url: str
    client: LedgerClient

    def post(self, message_id: str, kind: str, wei: int, user_id: str | None = None) -> None:
        self.client.post_movement(message_id, kind, POOL, user_id, wei)

    def post_all(self, *movements: tuple[str, str, int, str | None]) -> None:
        """(message id, kind, wei, user) each, in one call."""
        self.client.post_batch([movement(mid, kind, POOL, user, wei) for mid, kind, wei, user in movements])


@contextmanager
def running_ledger(database_url: str) -> Iterator[Books]:
    settings = LedgerSettings(
        app_env="test",
        http_port=8101,
        internal_keys=(KEY,),
        database_url=normalise_database_url(database_url),
        pool_id=POOL,
    )
    with serving(create_ledger(settings)) as url:
        yield Books(url, LedgerClient(url, KEY, 20))


class _Quiet(WSGIRequestHandler):
    """Keeps connections, as the real server does, and writes no line for each request."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # head and body of an answer in one piece: its reader, in this process too, wakes once

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """A web server of an app, in a thread."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
