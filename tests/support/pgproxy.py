"""A man in the middle of a PostgreSQL connection: sees every statement, and can cut the line around one."""

import enum
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Fate(enum.Enum):
    """What becomes of a statement: it passes; it never arrives; or it arrives and its answer is lost."""

    PASS = 1
    DROP = 2
    LOSE = 3


def let_pass(_statement: str) -> Fate:
    return Fate.PASS


class Proxy:
    """Listens on a port of its own. `decide` is asked about every statement, BEGIN and COMMIT included."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        netloc = parts.netloc.rsplit("@", 1)[0] + f"@127.0.0.1:{port}"
        # No encryption to negotiate: the messages are read here.
        self.url = urlunsplit(parts._replace(netloc=netloc, query="sslmode=disable&gssencmode=disable"))
        self.statements: list[str] = []
        self.decide: Callable[[str], Fate] = let_pass
        self._lost: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for run in (self._forward, self._back):
                    threading.Thread(target=run, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Client to server, message by message: a length, and a type before it in all but the first."""
        reader = client.makefile("rb")
        with suppress(OSError, struct.error):
            size = reader.read(4)
            first = size + reader.read(struct.unpack("!I", size)[0] - 4)
            server.sendall(first)
            while header := reader.read(5):
                message = header + reader.read(struct.unpack("!I", header[1:])[0] - 4)
                fate = Fate.PASS
                if header[:1] == b"Q":
                    statement = message[5:-1].decode()
                    self.statements.append(statement)
                    fate = self.decide(statement)
                if fate is Fate.LOSE:
                    self._lost.add(client)
                if fate is not Fate.DROP:
                    server.sendall(message)
                if fate is Fate.LOSE:
                    # The server ends its statement, its answer goes nowhere, and only then both see the line closed: a
                    # client that was cut off earlier could send the statement again before the first one is done.
                    server.shutdown(socket.SHUT_WR)
                    return
                if fate is Fate.DROP:
                    break
        _cut(client)
        _cut(server)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if client not in self._lost:
                    with suppress(OSError):
                        client.sendall(data)
        _cut(client)
        _cut(server)


def _cut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
