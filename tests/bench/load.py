"""Callers that cost next to nothing: kept connections, requests written as bytes, answers read as far as their length.

What a client library does for each call would be measured with the server, on a machine that both share.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# The bytes of the next request; each call of it makes another one, until there is none.
Ask = Callable[[], bytes | None]


@dataclass
class Load:
    """What came of a load: answers of the wanted status, others by status, and the time it took."""

    good: int = 0
    others: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


def request(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request as it goes over the line."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def run_load(url: str, ask: Ask, *, connections: int, seconds: float, wanted: int) -> Load:
    """Keep `connections` callers busy for so long, or until there is nothing more to ask, each with one request at a time; then
    let the last answers come."""
    parts = urlsplit(url)
    found = Load()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            line = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(line, selectors.EVENT_READ, _Caller(line))
        started = time.perf_counter()
        for caller in _callers(selector):
            if not caller.asks(ask()):
                selector.unregister(caller.line)
                caller.line.close()
        while selector.get_map():
            for key, _ in selector.select(timeout=30):
                caller = key.data
                status = caller.receive()
                if status is None:
                    continue
                now = time.perf_counter()
                found.times.append(now - caller.sent_at)
                if status == wanted:
                    found.good += 1
                else:
                    found.others[status] = found.others.get(status, 0) + 1
                if not (now - started < seconds and caller.asks(ask())):
                    selector.unregister(caller.line)
                    caller.line.close()
        found.seconds = time.perf_counter() - started
    return found


class _Caller:
    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.sent_at = 0.0
        self._read = b""

    def asks(self, request: bytes | None) -> bool:
        """Send a request, where there is one."""
        if request is None:
            return False
        self.sent_at = time.perf_counter()
        self.line.sendall(request)
        return True

    def receive(self) -> int | None:
        """Read what is there; the status of the answer once it is whole."""
        data = self.line.recv(262_144)
        if not data:
            raise ConnectionError("the server closed a kept connection")
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return None
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return None
        self._read = b""
        return int(head[9:12])


def _callers(selector: selectors.BaseSelector) -> Iterator[_Caller]:
    for key in list(selector.get_map().values()):
        yield key.data
