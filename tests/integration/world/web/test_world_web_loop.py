"""The web server's event loop sleeps while workers' threads answer; it took the interpreter's lock from them before."""

import socket
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from select import POLLOUT
from typing import Any

import pytest
from waitress import wasyncore

from apps.common.web_server import make_server
from tests.support.ports import free_port

CALLERS, CALLS = 16, 40
ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
BODY = b"x" * 200


def answer(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", str(2 * len(BODY)))])
    return [BODY, BODY]


def ask_often(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line, line.makefile("rb") as answers:
        for _ in range(CALLS):
            line.sendall(ASK)
            while answers.readline() != b"\r\n":
                pass
            assert answers.read(2 * len(BODY)) == 2 * BODY
    return CALLS


def test_event_loop__many_answers_by_threads__is_never_woken_to_send_what_they_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken: Counter[bool] = Counter()
    handle = wasyncore.readwrite

    def counted(channel: object, flags: int) -> None:
        woken[bool(flags & POLLOUT)] += 1
        handle(channel, flags)

    monkeypatch.setattr(wasyncore, "readwrite", counted)
    port = free_port()
    server = make_server(answer, "127.0.0.1", port)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with ThreadPoolExecutor(CALLERS) as callers:
            answered = sum(callers.map(ask_often, [port] * CALLERS))
    finally:
        server.stop()
        thread.join()
    assert answered == CALLERS * CALLS
    assert woken[True] == 0, "it would go round until the thread that sends has done"
