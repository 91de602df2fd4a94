"""The line between services against servers that speak HTTP well, badly, late, and not at all."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from apps.clients.base import CallFailed, ServiceClient
from apps.clients.line import MAX_HEAD_BYTES, BadAnswer, Lines

TIMEOUT_SEC = 10.0
JSON = b'{"a": 1}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + JSON
# What each connection is answered, request by request; None closes it without a word.
Script = list[list[bytes | None]]


class Callee:
    """Answers requests by a script, and keeps what it was asked."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.closed = threading.Event()  # the first connection is

    def serve(self) -> None:
        for answers in self._script:
            line, _ = self._listener.accept()
            with line:
                for answer in answers:
                    self.asked.append(_request(line))
                    if answer is None:
                        break
                    line.sendall(answer)
            self.closed.set()

    def stop(self) -> None:
        self._listener.close()


def _request(line: socket.socket) -> bytes:
    """One request without a body, or with one of a stated length."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += line.recv(65_536)
    head, _, body = read.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += line.recv(65_536)
    return read


@contextmanager
def callee(*script: list[bytes | None]) -> Iterator[Callee]:
    made = Callee(list(script))
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        thread.join(TIMEOUT_SEC)
        made.stop()


def ask(lines: Lines, *, timeout: float = TIMEOUT_SEC, anew: bool = False) -> tuple[int, bytes]:
    return lines.ask("GET", "/v1/things", {"X-Internal-Key": "k"}, None, timeout, anew=anew)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PLAIN, (200, JSON)),
        (b"HTTP/1.1 409 Conflict\r\ncontent-length:8\r\n\r\n" + JSON, (409, JSON)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, (200, JSON)),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n5;x=y\r\n": 1}\r\n0\r\n\r\n', (200, JSON)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + JSON + b"\r\n0\r\nX-T: 1\r\n\r\n",
            (200, JSON),
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    ],
)
def test_ask__an_answer_of_any_form__whole_and_the_line_is_kept(answer: bytes, expected: tuple[int, bytes]) -> None:
    with callee([answer, PLAIN]) as found:
        lines = Lines(found.url, 2)
        assert ask(lines) == expected
        assert ask(lines) == (200, JSON)
    assert len(found.asked) == 2
    assert found.asked[0].startswith(b"GET /v1/things HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Internal-Key: k\r\n" in found.asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n" + JSON,
        b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\n\r\n" + JSON,  # to the end of the connection
        PLAIN + b"more than was asked for",
    ],
)
def test_ask__a_line_that_is_not_to_be_used_again__is_not(answer: bytes) -> None:
    with callee([answer], [PLAIN]) as found:
        lines = Lines(found.url, 2)
        assert ask(lines) == (200, JSON)
        assert ask(lines) == (200, JSON)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\nContent-Length: -8\r\n\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nContent-Length: 7\r\n\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n" + JSON + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzz\r\n" + JSON,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_ask__what_is_no_whole_answer__is_none(answer: bytes | None) -> None:
    with callee([answer]) as found, pytest.raises(BadAnswer):
        ask(Lines(found.url, 2))


def test_ask__an_answer_that_trickles__ends_with_the_time_of_the_call() -> None:
    """A byte now and then resets the timeout of each read, never that of the call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            line, _ = listener.accept()
            with line:
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    try:
                        line.sendall(b"x")
                    except OSError:
                        return
                    time.sleep(0.05)

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        with pytest.raises(TimeoutError):
            ask(Lines(f"http://127.0.0.1:{listener.getsockname()[1]}", 2), timeout=0.3)
        thread.join(TIMEOUT_SEC)


@pytest.mark.parametrize("path", ["/v1/a b", "/v1/a\r\nX: 1", "/v1/ä", ""])
def test_ask__a_path_that_http_cannot_carry__refused_before_anything_is_sent(path: str) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        Lines("http://127.0.0.1:1", 2).ask("GET", path, {}, None, 1.0)


def test_ask__a_header_with_an_end_of_line__refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        Lines("http://127.0.0.1:1", 2).ask("GET", "/", {"X-Request-Id": "a\r\nX: 1"}, None, 1.0)


def test_call__kept_line_closed_meanwhile__sent_again_on_a_new_one() -> None:
    with callee([PLAIN], [PLAIN]) as found:
        client = ServiceClient(found.url, "k", TIMEOUT_SEC)
        assert client.get("/v1/things") == {"a": 1}
        assert found.closed.wait(TIMEOUT_SEC)
        assert client.post("/v1/things", {"message_id": "m"}) == {"a": 1}
    assert found.asked[1].endswith(b'\r\n\r\n{"message_id": "m"}')


def test_call__line_breaks_in_the_middle__sent_again_once_and_no_more() -> None:
    with callee([None], [PLAIN]) as found:
        assert ServiceClient(found.url, "k", TIMEOUT_SEC).post("/v1/things", {}) == {"a": 1}
    with callee([None], [None]) as found, pytest.raises(CallFailed):
        ServiceClient(found.url, "k", TIMEOUT_SEC).post("/v1/things", {})
    assert len(found.asked) == 2
