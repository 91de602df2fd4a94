"""One connection of the web server: how its requests are read, refused, answered, and given up."""

import json
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError, TransferEncodingNotImplemented
from waitress.task import ErrorTask

from apps.common.errors import BadRequest, HeadersTooLarge, LengthRequired, ServiceError, TooLarge, problem
from apps.common.security_headers import ALWAYS

# Longer than any pause between two calls of a flow, so that a caller's kept connection is seldom closed before its next call.
KEEP_ALIVE_SEC = 65.0
# From a request's first byte (of a new connection: from its opening) to its last.
REQUEST_SEC = 20.0
# An answer that waits for its reader must have lost so many bytes in each such span of time.
READ_WINDOW_SEC = 20.0
READ_WINDOW_BYTES = 320 * 1024
# What follows a refused request is thrown away for so long: a caller still sending would lose the answer to a reset.
LINGER_SEC = 5.0

_BY_CODE: dict[int, type[ServiceError]] = {413: TooLarge, 431: HeadersTooLarge, 500: ServiceError}


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Waitress' parser, whose every refusal is one of `apps.common.errors`, and which lets no exception escape."""

    error: Any = None
    refusal: ServiceError | None = None

    def received(self, data: bytes) -> int:
        used: int = super().received(data)
        if self.error is not None and not isinstance(self.error, ServiceError):
            self.error = self.refusal or _BY_CODE.get(self.error.code, BadRequest)()
        return used

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except TransferEncodingNotImplemented as error:
            self.refusal = LengthRequired()
            raise ParsingError("transfer encoding") from error
        except ValueError as error:  # a length of ten thousand digits, an address that is no URL
            raise ParsingError("header") from error
        # No caller needs chunks for a JSON object whose length is known; and HTTP/1.0 has none, so that there they would
        # be read as the next request.
        if self.chunked or "TRANSFER_ENCODING" in self.headers:
            self.refusal = LengthRequired()
            raise ParsingError("transfer encoding")


class RefusalTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Answers a request that no service sees."""

    def execute(self) -> None:
        error = self.request.error
        if not isinstance(error, ServiceError):
            error = ServiceError()
        self.channel.lingers = True
        self.status, headers, body = _rendered(error)
        self.response_headers.extend(headers)
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """Methods are called by the event loop's thread, but for `service`, which a worker's thread runs."""

    request: Any = None  # the one that is being read
    parser_class = Parser
    error_task_class = RefusalTask

    def __init__(self, *args: Any, **options: Any) -> None:
        self.held = 0  # bytes of a request that is not answered yet
        self.lingers = False
        self._answered = False
        self._since = time.monotonic()  # when its caller's turn began: to send a request, or the rest of it
        self._window: tuple[float, int] | None = None
        self._taken = 0
        self._refused_at: float | None = None
        self._sending = False  # a worker's thread is in `write_soon`
        super().__init__(*args, **options)

    def idle(self) -> bool:
        """Whether it is the caller's turn: to send a request, the rest of one, or to read an answer."""
        return not self.requests

    def at_rest(self) -> bool:
        """Whether no request is under way and no answer is left to send."""
        return not self.requests and not self.total_outbufs_len

    def half_sent(self) -> bool:
        return self.state() == "half_sent"

    def state(self) -> str:
        """What its caller has been doing, for the log."""
        if self._refused_at is not None:
            return "refused"
        if self.total_outbufs_len:
            return "does_not_read"
        if self.request is not None:
            return "half_sent"
        return "kept" if self._answered else "silent"

    def place_in_line(self) -> tuple[bool, float]:
        """The order in which connections are closed when there are too many: unfinished requests before kept connections, the
        oldest first."""
        return (self.state() == "kept", self._since)

    def overdue(self, now: float) -> bool:
        """Whether the caller has had the time that a request, an answer or a pause may take."""
        if self._refused_at is not None:
            return now - self._refused_at > LINGER_SEC
        if self.total_outbufs_len:
            return self._reads_too_slowly(now)
        self._window = None
        if self.requests:
            return False
        kept = self._answered and self.request is None
        return now - self._since > (KEEP_ALIVE_SEC if kept else REQUEST_SEC)

    def end(self, error: ServiceError | None = None) -> None:
        """Close the connection, telling why where the caller may still listen."""
        if error is not None:
            status, headers, body = _rendered(error)
            lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
            lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
            with suppress(OSError):  # it is gone already
                self.socket.send("\r\n".join(lines).encode() + body)
        if self.request is not None:
            self.request.close()
            self.request = None
        self.held = 0
        self.handle_close()

    def received(self, data: bytes) -> bool:
        """Read on the one request that this connection may have; what is sent beyond it is not read, and the connection
        closed behind its answer. Pipelined, one caller's requests would wait in our memory for each other's answers."""
        with self.requests_lock:
            if self.will_close or self.close_when_flushed or self.requests:
                return False
            if self.request is None:
                data = data.lstrip(b"\r\n")  # some callers end a body with a blank line
                if not data:
                    return True
                self.request = self.parser_class(self.adj)
                if self._answered:
                    self._since = time.monotonic()
            request, rest = self.request, data
            while rest and not request.completed:  # the header first, then the body
                rest = rest[request.received(rest) :]
            self.held += len(data)
            if request.completed:
                self._complete(request, more=bool(rest.strip(b"\r\n")))
            elif request.expect_continue and request.headers_finished and not self.sent_continue:
                self.send_continue()
        self.server.took(len(data))
        return True

    def service(self) -> None:
        super().service()
        self.held = 0
        self._since = time.monotonic()
        self._answered = True

    def readable(self) -> bool:
        return self._refused_at is not None or bool(super().readable())

    def writable(self) -> bool:
        """Whether the event loop has something to send. Not while a worker's thread sends it itself: the loop could not get
        the lock, would be told at once that the line can take more, and would go round and round, the interpreter's lock in
        its hands, until the worker had done. Above the high-water mark the worker waits for the loop."""
        if self._refused_at is not None:
            return False
        if self._sending and not self.will_close and self.total_outbufs_len <= self.adj.outbuf_high_watermark:
            return False
        return bool(super().writable())

    def write_soon(self, data: Any) -> int:
        self._sending = True
        try:
            return int(super().write_soon(data))
        finally:
            self._sending = False
            if self.total_outbufs_len:  # the line took only a part: the rest is the event loop's to send
                self.server.pull_trigger()

    def handle_read(self) -> None:
        try:
            data = self.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if data and self._refused_at is None:
            self.received(data)

    def handle_write(self) -> None:
        if not (self.lingers and self.close_when_flushed and not self.total_outbufs_len):
            super().handle_write()
            return
        self._refused_at = time.monotonic()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()

    def send(self, data: bytes, do_close: bool = True) -> int:  # noqa: FBT001, FBT002  # as waitress calls it
        sent: int = super().send(data, do_close)
        self._taken += sent
        return sent

    def _complete(self, request: Parser, *, more: bool) -> None:
        self.request = None
        self.sent_continue = False
        if request.empty:
            return
        if more:
            request.headers["CONNECTION"] = "close"
        self.requests.append(request)
        self.server.add_task(self)

    def _reads_too_slowly(self, now: float) -> bool:
        if self._window is None:
            self._window = (now, self._taken)
            return False
        began, before = self._window
        if now - began < READ_WINDOW_SEC:
            return False
        self._window = (now, self._taken)
        return self._taken - before < READ_WINDOW_BYTES


def _rendered(error: ServiceError) -> tuple[str, list[tuple[str, str]], bytes]:
    status = f"{error.status} {HTTPStatus(error.status).phrase}"
    headers = [("Content-Type", "application/problem+json"), *ALWAYS.items()]
    return status, headers, json.dumps(problem(error)).encode()
