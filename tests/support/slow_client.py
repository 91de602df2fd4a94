"""Rude callers without a key: they send half, nothing, too much or a byte at a time, and do not read what they get.

Each works on plain sockets, many at once, from one thread. A server that gives a thread to a connection is held by as many
of them as it has threads.
"""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_HEAD = b"POST /v1/movements HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_HALF_BODY = _HEAD + b'Content-Length: 5000\r\n\r\n{"message_id": "'

# What a kind says at once, and then again and again until it is thrown out.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "half_header": (_HEAD, b""),
    "half_body": (_HALF_BODY, b""),
    "half_large_body": (_HEAD + b"Content-Length: 8000000\r\n\r\n" + b" " * 100_000, b""),
    "trickled_header": (_HEAD + b"X-Long: ", b"x"),
    "trickled_body": (_HALF_BODY, b"a"),
    "endless_header": (_HEAD, b"X-Filler: " + b"x" * 4_000 + b"\r\n"),
    "half_chunk": (_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", b""),
    "waits_for_continue": (_HEAD + b"Content-Length: 50\r\nExpect: 100-continue\r\n\r\n", b""),
    "blank_lines": (b"\r\n", b"\r\n"),
    # A large open page a hundred times over, none of it read.
    "never_reads": (b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 100, b""),
}


class Siege:
    """Connections of one or several kinds to one server."""

    def __init__(self, port: int, kinds: Sequence[str], each: int, *, again: bool) -> None:
        self._port = port
        self._again = again
        self._sockets: dict[socket.socket, str] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.thrown_out = 0
        self.heard = b""  # what those said that were told something before they were thrown out
        for _ in range(each):
            for kind in kinds:
                self._open(kind)
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    @property
    def open_connections(self) -> int:
        return len(self._sockets)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        for connection in list(self._sockets):
            connection.close()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline, f"{len(self._sockets)} connections are still served"
            time.sleep(0.05)

    def _open(self, kind: str) -> None:
        connection = socket.socket()
        # So small that an answer does not fit: who does not read, keeps the server waiting.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        try:
            connection.connect(("127.0.0.1", self._port))
            connection.setblocking(False)
            self._sockets[connection] = kind
            self._say(connection, KINDS[kind][0])
        except OSError:
            self._sockets.pop(connection, None)
            connection.close()

    def _go_on(self) -> None:
        """Say the next byte, look who was thrown out, and come again."""
        while not self._stopped.wait(0.1):
            for connection, kind in list(self._sockets.items()):
                if self._thrown_out(connection, kind) or not self._say(connection, KINDS[kind][1]):
                    self.thrown_out += 1
                    del self._sockets[connection]
                    connection.close()
                    if self._again:
                        self._open(kind)

    def _thrown_out(self, connection: socket.socket, kind: str) -> bool:
        if kind == "never_reads":  # nor would it hear that it is thrown out
            return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        try:
            heard = connection.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.heard += heard
        return not heard

    def _say(self, connection: socket.socket, words: bytes) -> bool:
        try:
            if words:
                connection.send(words)
        except BlockingIOError:
            return True
        except OSError as error:
            return error.errno == errno.EAGAIN
        return True


@contextmanager
def besieged(port: int, kinds: Sequence[str] = tuple(KINDS), each: int = 16, *, again: bool = True) -> Iterator[Siege]:
    """`each` connections of every kind; with `again` whoever is thrown out comes back at once."""
    siege = Siege(port, kinds, each, again=again)
    try:
        yield siege
    finally:
        siege.stop()


def converse(port: int, words: bytes) -> bytes:
    """Say something, and return all that is answered until the server closes; at most a minute of silence."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(OSError):  # the server may close while we speak
            connection.sendall(words)
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65_536):
                heard += piece
        return heard
