"""Callers who send slowly, by halves, or do not read: no service gives them a thread, and the calls of others go on."""

import json
import resource
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import requests

from apps.common.auth import HEADER
from tests.support.lido import Desk
from tests.support.slow_client import KINDS, besieged, converse
from tests.support.web import KEY, SERVICES, Service, broker, running
from tests.support.workers import worker_environment


def deposit(number: int | str) -> dict[str, Any]:
    return {"message_id": f"world:{number}", "kind": "deposit", "user_id": "ann", "amount_wei": "5"}


@pytest.mark.parametrize("name", SERVICES)
def test_service__sixteen_rude_callers_of_every_kind__serves_others(name: str, services: dict[str, Service]) -> None:
    with besieged(services[name].port) as siege:
        for _ in range(10):
            services[name].assert_serves()
        assert siege.open_connections > 100


@pytest.mark.parametrize("kind", KINDS)
def test_ledger__a_hundred_rude_callers_of_one_kind__money_moves_on(kind: str, ledger: Service) -> None:
    with besieged(ledger.port, [kind], each=100):
        for number in range(5):
            answer = ledger.post("/v1/movements", deposit(f"{kind}:{number}"))
            assert answer.status_code == 201, answer.text
        ledger.assert_serves()


def test_ledger__thousands_of_connections_that_say_nothing_or_half__newcomers_are_served(ledger: Service) -> None:
    """More than the server keeps: whoever has waited longest makes room."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    each = min(1_500, (allowed - 500) // 3)
    with besieged(ledger.port, ["silent", "half_header", "half_body"], each, again=False) as siege:
        assert siege.open_connections > min(2_000, each)
        ledger.assert_serves()
        kept = ledger.session.get(f"{ledger.url}/v1/totals", headers={HEADER: KEY}, timeout=60)
        assert kept.status_code == 200
        siege.wait_until(lambda: siege.thrown_out > 0)
        ledger.assert_serves()


def test_ledger__callers_who_never_finish__all_thrown_out_and_told_why(ledger: Service) -> None:
    """Not for being idle: those who send a byte a moment are no better."""
    kinds = [kind for kind in KINDS if kind not in {"never_reads", "blank_lines"}]
    with besieged(ledger.port, kinds, each=3, again=False) as siege:
        siege.wait_until(lambda: siege.open_connections == 0)
    for code in ("request_timeout", "headers_too_large", "length_required"):
        assert code.encode() in siege.heard, code
    assert b"Server:" not in siege.heard


def test_ledger__many_large_halves__held_bytes_stay_bounded(ledger: Service) -> None:
    """Sixty bodies of 8 MB, each sent but for its last byte."""
    words = b"POST /v1/movements HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + b" " * 7_999_999
    connections = [socket.create_connection(("127.0.0.1", ledger.port), timeout=60) for _ in range(60)]

    def send(connection: socket.socket) -> bool:
        try:
            connection.sendall(words)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(send, connections))
    try:
        still_open = 0
        for connection in connections:
            connection.setblocking(False)
            try:
                still_open += connection.recv(1) != b""
            except BlockingIOError:
                still_open += 1
            except OSError:
                pass
        assert any(sent)
        assert still_open < 40  # 256 MiB are 33 of them, and the kernel may hold what was not read yet
        ledger.assert_serves()
    finally:
        for connection in connections:
            connection.close()


def test_ledger__exports_that_nobody_reads__others_are_served(ledger: Service) -> None:
    """With a key, and the one answer that has no end: at most two hold a thread, and more are told to come again."""
    for batch in range(6):
        movements = [deposit(f"export:{batch}:{number}") for number in range(10_000)]
        assert ledger.post("/v1/movements/batch", {"movements": movements}).status_code == 201
    ask = f"GET /v1/exports/movements HTTP/1.1\r\nHost: x\r\n{HEADER}: {KEY}\r\n\r\n".encode()
    readers = []
    for _ in range(12):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(60)
        reader.connect(("127.0.0.1", ledger.port))
        reader.sendall(ask)
        readers.append(reader)
    try:
        firsts = [reader.recv(12) for reader in readers]
        assert set(firsts) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert firsts.count(b"HTTP/1.1 200") == 2
        for number in range(5):
            assert ledger.post("/v1/movements", deposit(f"unread:{number}")).status_code == 201
        ledger.assert_serves()
    finally:
        for reader in readers:
            reader.close()
    whole = ledger.get("/v1/exports/movements", stream=True)
    while whole.status_code == 429:  # until the server has seen that they are gone
        whole = ledger.get("/v1/exports/movements", stream=True)
    assert sum(1 for _ in whole.iter_lines()) >= 60_000


def test_relayer__everybody_asks_for_its_status_while_the_node_hangs__calls_go_on(
    make_database: Callable[[str], str],
) -> None:
    """The status page needs no key, and asks the node."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as deaf:
        node = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        environment = worker_environment(make_database("relayer"), [node], RELAYER_HTTP_API_KEY=KEY)
        with running("relayer", environment, healthy=503) as relayer, ThreadPoolExecutor(24) as pool:
            asking = [pool.submit(requests.get, relayer.url + "/healthz", timeout=120) for _ in range(24)]
            for _ in range(10):
                assert relayer.get("/v1/transactions").status_code == 200
            assert {asked.result().status_code for asked in asking} == {503}


def test_relayer__more_callers_wait_than_there_are_threads__others_are_served(services: dict[str, Service]) -> None:
    relayer = services["relayer"]
    body = {"message_id": "world:waited-for", "to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "data": "0x"}
    assert relayer.post("/v1/transactions", {**body, "value_wei": "1"}).status_code == 202  # no worker: stays queued
    url, headers = relayer.url + "/v1/transactions/world:waited-for", {HEADER: KEY}
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(requests.get, url, params={"wait": "5"}, headers=headers, timeout=60) for _ in range(16)]
        for _ in range(5):
            relayer.assert_serves()
        assert {asked.result().status_code for asked in waiting} == {200}


def test_relayer__forwarded_call_without_a_key__refused_as_nobody_knows_whose_it_is(
    house_desk: Desk, make_database: Callable[[str], str]
) -> None:
    """Without a key set, callers of this machine are served; the web server must neither hide what says that a call was
    forwarded, nor believe it."""
    with broker() as broker_url:
        environment = worker_environment(make_database("relayer"), [house_desk.rpc_url], CELERY_BROKER_URL=broker_url)
        with running("relayer", environment, key="") as relayer:
            assert relayer.get("/v1/signers").status_code == 200
            for name, value in (
                ("X-Forwarded-For", "203.0.113.9"),
                ("X-Forwarded-For", "127.0.0.1"),
                ("Forwarded", "for=127.0.0.1"),
                ("X-Real-Ip", "127.0.0.1"),
            ):
                assert relayer.get("/v1/signers", headers={name: value}).status_code == 401, (name, value)


def test_stop__a_posting_under_way_and_rude_callers__it_ends_in_order(make_database: Callable[[str], str]) -> None:
    """SIGTERM: what is under way is answered; those who only hold a connection delay nothing."""
    url = make_database("ledger")
    with running("ledger", {"DATABASE_URL": url}) as ledger, besieged(ledger.port, again=False):
        assert ledger.post("/v1/movements", deposit(1)).status_code == 201
        blocker = psycopg2.connect(url, connect_timeout=10)
        with closing(blocker), blocker.cursor() as cursor, ThreadPoolExecutor(1) as pool:
            cursor.execute("SELECT * FROM balances WHERE user_id = 'ann' FOR UPDATE")
            under_way = pool.submit(requests.post, ledger.url + "/v1/movements", json=deposit(2), headers={HEADER: KEY})
            wait_until_blocked(url)
            ledger.process.terminate()
            wait_until_refused(ledger.port)
            blocker.rollback()
            assert under_way.result(timeout=60).status_code == 201
        assert ledger.process.wait(timeout=60) == 0


def test_http__what_is_no_request__is_refused_with_a_problem_and_the_service_lives(ledger: Service) -> None:
    cases: list[tuple[bytes, int, str]] = [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/movements HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/movements HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/movements HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}", 400, "bad_request"),
        (b"POST /v1/movements HTTP/1.1\r\nContent-Length: 8388609\r\n\r\n", 413, "too_large"),
        (b"POST /v1/movements HTTP/1.1\r\nContent-Length: 8388609\r\nExpect: 100-continue\r\n\r\n", 413, "too_large"),
        (b"POST /v1/movements HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "length_required"),
        (b"POST /v1/movements HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "length_required"),
        (b"POST /v1/movements HTTP/1.1\r\nTransfer-Encoding: gzip, \x0b\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/movements HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 411, "length_required"),
        (b"GET /v1/totals HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", 431, "headers_too_large"),
        (b"GET /v1/totals HTTP/1.1\r\n" + b"A: b\r\n" * 9_000 + b"\r\n", 431, "headers_too_large"),
        (b"GET /v1/totals HTTP/1.1\r\nConnection: close\r\n\r\n", 401, "unauthorized"),
        (b"\xff\xfe / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /v1/totals HTTP/9.9\r\n\r\n", 401, "unauthorized"),
    ]
    for words, status, code in cases:
        heard = converse(ledger.port, words)
        head, _, body = heard.partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == str(status).encode(), (words[:80], heard[:300])
        assert b"application/problem+json" in head
        assert (json.loads(body)["code"], json.loads(body)["status"]) == (code, status), words[:80]
        assert b"server:" not in head.lower()
    ledger.assert_serves()


def test_http__a_caller_who_sends_too_much__hears_that_it_was_too_much(ledger: Service) -> None:
    """Not a reset connection, which a caller takes for no answer, and sends all of it again."""
    for size in (9_000_000, 20_000_000):
        answer = requests.post(ledger.url + "/v1/movements", data=b" " * size, headers={HEADER: KEY}, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_http__pipelined_requests__the_first_is_answered_and_the_rest_not_read(ledger: Service) -> None:
    words = f"GET /v1/totals HTTP/1.1\r\nHost: x\r\n{HEADER}: {KEY}\r\n\r\n".encode() * 20
    heard = converse(ledger.port, words)
    assert heard.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in heard


def test_http__a_body_after_continue__is_taken(ledger: Service) -> None:
    body = json.dumps(deposit("continued")).encode()
    head = f"POST /v1/movements HTTP/1.1\r\nHost: x\r\n{HEADER}: {KEY}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", ledger.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        heard = b""
        while piece := connection.recv(65_536):
            heard += piece
    assert heard.startswith(b"HTTP/1.1 201")


def test_http__a_kept_connection__serves_call_after_call(ledger: Service) -> None:
    """Blank lines between requests included, which some callers send."""
    ask = f"GET /v1/totals HTTP/1.1\r\nHost: x\r\n{HEADER}: {KEY}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", ledger.port), timeout=60) as connection:
        for _ in range(30):
            connection.sendall(ask + b"\r\n")
            heard = b""
            while b'"last_movement_id"' not in heard:
                heard += connection.recv(65_536)
            assert heard.startswith(b"HTTP/1.1 200 OK")
            assert b"Connection: close" not in heard


def wait_until_blocked(url: str) -> None:
    """Until a session of this database waits for a lock."""
    waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND datname = %s"
    with closing(psycopg2.connect(url, connect_timeout=10)) as connection, connection.cursor() as cursor:
        deadline = time.monotonic() + 60
        while True:
            cursor.execute(waiting, (connection.info.dbname,))
            if cursor.fetchone() != (0,):
                return
            assert time.monotonic() < deadline, "nobody came to wait"
            time.sleep(0.02)


def wait_until_refused(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except ConnectionRefusedError:
            return
        assert time.monotonic() < deadline, "the server still listens"
        time.sleep(0.02)
