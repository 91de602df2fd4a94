"""One sending: a POST to an address that somebody else chose, whose server may do anything.

What it costs us is bounded: one time for the whole call, however slowly an answer drips; so many bytes of an answer; no
redirect, no proxy, no cookie; and no address that the rules of `destination` refuse.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NameResolutionError

from apps.flow.row import Reason, reason
from apps.pool.webhooks import destination
from apps.pool.webhooks.destination import AddressRefused, NameUnknown, Resolve, checked

# Of the whole call, from the name's resolution to the answer's last byte.
TOTAL_SEC = 10.0
# An answer is its status. So much of its body is read, so that the connection can be used again.
MAX_ANSWER_BYTES = 16 * 1024
_OF_A_KEPT_LINE = frozenset({"connection_failed", "not_http"})


@dataclass(frozen=True)
class Answer:
    """What a sending came to: an answer's status, or why there is none. `retry_after` is the header as it came."""

    status: int | None
    duration_ms: int
    fault: Reason | None = None
    retry_after: str | None = None


class Line:
    """One connection to an endpoint, used for one sending at a time and kept for the next one."""

    def __init__(
        self,
        url: str,
        *,
        allow_private: bool,
        total_sec: float = TOTAL_SEC,
        resolve: Resolve = destination.resolve,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        # It would log a trace for whatever odd thing a server says.
        logging.getLogger("urllib3.connection").setLevel(logging.CRITICAL)
        parts = urlsplit(url)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._total_sec = total_sec
        host, port = parts.hostname or "", parts.port
        self._connection: _Plain | _Secure
        if parts.scheme == "https":
            self._connection = _Secure(host, port, timeout=total_sec, ssl_context=trust or _trust())
        else:
            self._connection = _Plain(host, port, timeout=total_sec)
        self._guard = self._connection.guard = _Guard(resolve, allow_private=allow_private)

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a body and read the answer; whatever the other side does is in the answer, and nothing is raised."""
        began = time.monotonic()
        kept = self._connection.sock is not None
        answer = self._post(body, headers, began)
        if kept and answer.fault is not None and answer.fault["code"] in _OF_A_KEPT_LINE:
            # It was closed since the last sending, as servers do, or held more than the last answer. What the server did
            # with this sending, if anything, it does again.
            answer = self._post(body, headers, began)
        return answer

    def close(self) -> None:
        self._connection.close()
        self._guard.release()

    def _post(self, body: bytes, headers: Mapping[str, str], began: float) -> Answer:
        with self._guard.time(began + self._total_sec - time.monotonic()):
            try:
                status, retry_after = self._exchange(body, headers)
                fault = None
            except Exception as error:  # noqa: BLE001  # a server may answer with anything, at any point of the call
                self._connection.close()
                status, retry_after, fault = None, None, _fault_of(error)
        if self._guard.is_over:
            self._connection.close()
            status, fault = None, reason("no_answer", f"No whole answer came within {self._total_sec:g} s.")
        if self._connection.sock is None:
            self._guard.release()
        return Answer(status, int((time.monotonic() - began) * 1000), fault, retry_after)

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None]:
        self._connection.request("POST", self._path, body, dict(headers), preload_content=False)
        response = self._connection.getresponse()
        left = MAX_ANSWER_BYTES
        # Not decoded: a few bytes of a compressed answer may stand for as many millions. The last, empty read says whether
        # the answer was whole.
        while left > 0 and (some := response.read(left, decode_content=False)):
            left -= len(some)
        if left <= 0:
            self._connection.close()
        return response.status, response.headers.get("Retry-After")


class _Guard:
    """Checks the address at the connection's making, and ends a call whose time is over, wherever it hangs.

    The socket's own timeout begins anew with each byte that comes; so the time is kept here, and the line shut down below
    whatever waits for it. For that a second handle of the socket is held: TLS takes the first one over.
    """

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None
        self.is_over = False

    def connect(self, host: str, port: int, timeout_sec: float) -> socket.socket:
        """A connection to one of the addresses that the name stands for now, all of which are allowed."""
        found = checked(self._resolve(host, port), allow_private=self._allow_private)
        give_up = time.monotonic() + timeout_sec
        fault: OSError = OSError("no address")
        for family, kind, protocol, _, place in found:
            line = socket.socket(family, kind, protocol)
            line.settimeout(max(0.001, give_up - time.monotonic()))
            try:
                self._hold(line)
                line.connect(place)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line.settimeout(timeout_sec)
                return line
            except OSError as error:
                line.close()
                fault = error
        raise fault

    def time(self, seconds: float) -> "_Clock":
        return _Clock(self, seconds)

    def end(self) -> None:
        """The time is over: whatever waits for the line finds its end."""
        with self._lock:
            self.is_over = True
            if self._handle is not None:
                with suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        with self._lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _hold(self, line: socket.socket) -> None:
        self.release()
        with self._lock:
            if self.is_over:
                raise TimeoutError
            self._handle = line.dup()


class _Clock:
    """The time of one call."""

    def __init__(self, guard: _Guard, seconds: float) -> None:
        self._timer = threading.Timer(max(0.001, seconds), guard.end)
        self._timer.daemon = True
        guard.is_over = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


class _Guarded:
    """Of a connection of urllib3: how it is made. The name stays what TLS and the Host header say."""

    guard: _Guard
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        return self.guard.connect(self.host, self.port, TOTAL_SEC)


class _Plain(_Guarded, HTTPConnection):
    pass


class _Secure(_Guarded, HTTPSConnection):
    pass


@cache
def _trust() -> ssl.SSLContext:
    """Made once: reading all certificate authorities takes longer than a sending."""
    return ssl.create_default_context(cafile=certifi.where())


def _fault_of(error: Exception) -> Reason:
    """Why there is no answer, in words of ours: what an exception says may hold an address within our network."""
    causes: list[Any] = [error, error.__cause__, error.__context__, getattr(error, "reason", None)]
    if any(isinstance(cause, AddressRefused) for cause in causes):
        return reason("address_refused", "The name stands for a private address; see WEBHOOK_ALLOW_PRIVATE.")
    if any(isinstance(cause, NameUnknown | NameResolutionError) for cause in causes):
        return reason("name_unknown", "The name stands for no address.")
    if any(isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError) for cause in causes):
        return reason("certificate_refused", "The certificate is not one that the public authorities vouch for.")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return reason("no_answer", "No connection was made in time.")
    if isinstance(error, HTTPError | OSError | ssl.SSLError):
        return reason("connection_failed", "The connection was refused, or broke before an answer had come.")
    return reason("not_http", "What came was not an answer of HTTP.")
