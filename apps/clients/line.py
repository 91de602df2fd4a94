"""HTTP/1.1 as the services of one house speak it: a request, its whole answer, and the connection kept for the next one.

A library for every server there is costs several times what such a call does, most of it in reading an answer's headers as
those of a mail. Here no proxy is taken from the environment, no redirect followed, no encoding undone and no header kept.
"""

import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import certifi

MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_PLAIN = re.compile(r"[!-~]+")  # a path: no blank, no end of line, nothing beyond ASCII
_VALUE = re.compile(r"[ -~]*")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])\b")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"[0-9a-fA-F]{1,8}")


class Answer(NamedTuple):
    """A status and the bytes of a body."""

    status: int
    body: bytes


class BadAnswer(OSError):
    """What came is no HTTP, or ended before it was whole."""


class Lines:
    """Connections to one server, each for one call at a time; up to `kept` wait for the next one. Thread-safe."""

    def __init__(self, base_url: str, kept: int) -> None:
        address = urlsplit(base_url)
        self._host = address.hostname or ""
        self._tls = ssl.create_default_context(cafile=certifi.where()) if address.scheme == "https" else None
        self._port = address.port or (443 if self._tls else 80)
        self._path = address.path
        self._named = address.netloc.rpartition("@")[2]
        self._kept = kept
        self._free: deque[_Line] = deque()

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
        *,
        anew: bool = False,
    ) -> Answer:
        """One call, answered within `timeout` seconds as a whole; with `anew` on a connection that was never used.

        Raises `TimeoutError`, another `OSError` where there is no whole answer, and `ValueError` for what cannot be asked.
        """
        request = self._request(method, path, headers, body)
        deadline = time.monotonic() + timeout
        line = self._take(deadline, anew=anew)
        try:
            answer = line.ask(request, deadline)
        except BaseException:
            line.close()
            raise
        if line.lasts and len(self._free) < self._kept:
            self._free.append(line)
        else:
            line.close()
        return answer

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        if not _PLAIN.fullmatch(path) or not all(map(_VALUE.fullmatch, headers.values())):
            raise ValueError("A path or a header holds what HTTP cannot carry.")
        lines = [f"{method} {self._path}{path} HTTP/1.1", f"Host: {self._named}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")

    def _take(self, deadline: float, *, anew: bool) -> "_Line":
        while self._free and not anew:
            try:
                line = self._free.pop()
            except IndexError:  # another thread was quicker
                break
            if not line.has_news():
                return line
            line.close()
        made = socket.create_connection((self._host, self._port), max(0.001, deadline - time.monotonic()))
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                made = self._tls.wrap_socket(made, server_hostname=self._host)
        except BaseException:
            made.close()
            raise
        return _Line(made)


class _Line:
    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._read = b""
        self.lasts = True  # for another call

    def close(self) -> None:
        self._socket.close()

    def has_news(self) -> bool:
        """Whether an idle line has something to be read: its end, or what nobody asked for."""
        look = select.poll()
        look.register(self._socket.fileno(), select.POLLIN)
        return bool(look.poll(0))

    def ask(self, request: bytes, deadline: float) -> Answer:
        self._wait_until(deadline)
        with suppress(BrokenPipeError):  # a callee that read no further may have said why
            self._socket.sendall(request)
        while True:
            status, fields = self._head(deadline)
            if status >= 200:  # what comes before says that an answer will
                break
        body = self._body(status, fields, deadline)
        if self._read or b"close" in fields.get(b"connection", b"").lower():
            self.lasts = False
        return Answer(status, body)

    def _head(self, deadline: float) -> tuple[int, dict[bytes, bytes]]:
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            if len(self._read) > MAX_HEAD_BYTES:
                raise BadAnswer("an answer's head without an end")
            self._more(deadline)
        first, *rest = self._read[:end].split(b"\r\n")
        self._read = self._read[end + 4 :]
        status = _STATUS.match(first)
        if status is None:
            raise BadAnswer("no HTTP")
        fields: dict[bytes, bytes] = {}
        for field in rest:
            name, colon, value = field.partition(b":")
            name = name.lower()
            if not colon or (name == b"content-length" and name in fields):
                raise BadAnswer("a header that is none, or a second length")
            fields[name] = value.strip()
        if first.startswith(b"HTTP/1.0"):
            fields.setdefault(b"connection", b"close")
        return int(status[1]), fields

    def _body(self, status: int, fields: Mapping[bytes, bytes], deadline: float) -> bytes:
        if status in {204, 304}:
            return b""
        if b"transfer-encoding" in fields:
            return self._chunks(deadline)
        length = fields.get(b"content-length")
        if length is None:
            return self._to_the_end(deadline)
        if not _LENGTH.fullmatch(length):
            raise BadAnswer("a length that is none")
        return self._exactly(int(length), deadline)

    def _chunks(self, deadline: float) -> bytes:
        found = []
        while True:
            size = self._line(deadline).partition(b";")[0].strip()
            if not _CHUNK.fullmatch(size):
                raise BadAnswer("a chunk without a size")
            if int(size, 16) == 0:
                break
            found.append(self._exactly(int(size, 16), deadline))
            if self._line(deadline):
                raise BadAnswer("a chunk longer than it says")
        while self._line(deadline):
            pass  # trailers
        return b"".join(found)

    def _line(self, deadline: float) -> bytes:
        while (end := self._read.find(b"\r\n")) < 0:
            if len(self._read) > MAX_HEAD_BYTES:
                raise BadAnswer("a line without an end")
            self._more(deadline)
        line, self._read = self._read[:end], self._read[end + 2 :]
        return line

    def _exactly(self, length: int, deadline: float) -> bytes:
        parts = [self._read[:length]]
        self._read = self._read[length:]
        missing = length - len(parts[0])
        while missing:
            self._more(deadline)
            parts.append(self._read[:missing])
            self._read = self._read[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def _to_the_end(self, deadline: float) -> bytes:
        self.lasts = False
        parts = [self._read]
        self._read = b""
        while True:
            self._wait_until(deadline)
            part = self._socket.recv(_READ_BYTES)
            if not part:
                return b"".join(parts)
            parts.append(part)

    def _more(self, deadline: float) -> None:
        self._wait_until(deadline)
        part = self._socket.recv(_READ_BYTES)
        if not part:
            raise BadAnswer("the connection ended before the answer was whole")
        self._read += part

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole answer in time")
        self._socket.settimeout(left)
