"""A real PostgreSQL that lets its callers down: read-only, full, shut, killed, or replaced by its standby.

rude = RudeDatabase(url)              # `rude.url` is a plain role's, whom connection limits apply to
with rude.read_only(): ...            # sessions that are open already included
with rude.no_slots(): ...
rude.kill_sessions()

with door(server_url) as way:         # services connect to `way.url(...)`; what stands behind it can change
    way.shut(); way.lead_to(port)
"""

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql

from apps.local.postgres import Postgres, answers, unprivileged_account
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.scratch import scratch

_NAMES = itertools.count()
PASSWORD = "plain"  # of a role that lives as long as a test


class RudeDatabase:
    """One database, made rude by its server's owner, `url`."""

    def __init__(self, url: str) -> None:
        self._owner_url = url
        parts = urlsplit(url)
        self.name = parts.path.strip("/")
        role = f"plain_{next(_NAMES)}_{self.name}"
        self.url = urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rsplit('@', 1)[1]}"))
        named = sql.Identifier(role)
        with self._owner(self.name) as cursor:
            cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(named, sql.Literal(PASSWORD)))
            for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
                grant = sql.SQL("GRANT ALL ON ALL {} IN SCHEMA public TO {}")
                cursor.execute(grant.format(sql.SQL(kind), named))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """The whole server takes no writes, in old sessions and new ones, as one that was demoted."""
        self._set_read_only("on")
        try:
            yield
        finally:
            self._set_read_only("off")

    @contextmanager
    def read_only_for_newcomers(self) -> Iterator[None]:
        """Whoever connects from now on finds a server that takes no writes; those inside go on until they are killed."""
        self._alter("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self._alter("RESET default_transaction_read_only")

    @contextmanager
    def no_slots(self) -> Iterator[None]:
        """Nobody is let in, and whoever was inside is thrown out."""
        self._alter("CONNECTION LIMIT 0")
        self.kill_sessions()
        try:
            yield
        finally:
            self._alter("CONNECTION LIMIT -1")

    def kill_sessions(self) -> None:
        """As a shutdown of the server does: every session is told so, and is gone."""
        with self._owner("postgres") as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (self.name,)
            )

    def sessions(self) -> int:
        with self._owner("postgres") as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (self.name,))
            return int(cursor.fetchall()[0][0])

    def _set_read_only(self, value: str) -> None:
        with self._owner("postgres") as cursor:
            cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            cursor.execute("SELECT pg_reload_conf()")
        # Each session reads it for itself, so this one waits until a session that was there already has.
        with self._owner("postgres", ours=False) as cursor:
            while True:
                cursor.execute("SHOW default_transaction_read_only")
                if cursor.fetchall()[0][0] == value:
                    return

    def _alter(self, change: str) -> None:
        with self._owner("postgres") as cursor:
            cursor.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(self.name), sql.SQL(change)))

    @contextmanager
    def _owner(self, database: str, *, ours: bool = True) -> Iterator["psycopg2.extensions.cursor"]:
        url = urlunsplit(urlsplit(self._owner_url)._replace(path=f"/{database}"))
        connection = psycopg2.connect(url, connect_timeout=10)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                if ours:
                    cursor.execute("SET default_transaction_read_only = off")
                yield cursor
        finally:
            connection.close()


class Door:
    """A fixed address for a server that moves, as a failover's virtual address is."""

    def __init__(self, port: int) -> None:
        self._port: int | None = port
        self._lines: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """A server's URL through this door."""
        parts = urlsplit(url)
        account = parts.netloc.rsplit("@", 1)[0]
        return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{self.port}"))

    def lead_to(self, port: int, *, cut: bool = True) -> None:
        """Newcomers reach the server at this port. With `cut` False those inside stay with the old one."""
        self._port = port
        if cut:
            self._cut()

    def shut(self) -> None:
        """Nobody is there: lines break, and new ones are refused."""
        self._port = None
        self._cut()

    def close(self) -> None:
        self._listener.close()
        self.shut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                port = self._port
                try:
                    if port is None:
                        raise ConnectionRefusedError
                    server = socket.create_connection(("127.0.0.1", port))
                except OSError:
                    client.close()
                    continue
                self._lines |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for line in (one, other):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            self._lines.discard(line)

    def _cut(self) -> None:
        for line in list(self._lines):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


@contextmanager
def door(url: str) -> Iterator[Door]:
    """A door that leads to the server of this URL, until it is told another."""
    found = Door(urlsplit(url).port or 5432)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def standby(server: Server) -> Iterator[str]:
    """A hot standby of a test's server, following it; yields its URL. ``SELECT pg_promote()`` there ends that."""
    with scratch() as directory:
        copy = Postgres(directory / "standby", free_port(), server.postgres.password)
        account = unprivileged_account()
        who: dict[str, Any] = {
            "user": account.pw_uid if account else None, "group": account.pw_gid if account else None,
            "extra_groups": [] if account else None, "cwd": "/",
        }  # fmt: skip
        copy.data.parent.mkdir(parents=True)
        if account is not None:
            os.chown(copy.data.parent, account.pw_uid, account.pw_gid)
        backup = [str(copy.program("pg_basebackup")), "-D", str(copy.data), "-d", server.url("postgres"), "-R", "-X"]
        subprocess.run([*backup, "stream", "-c", "fast", "--no-sync"], check=True, timeout=120, **who)
        process = subprocess.Popen([*copy.command(), "-c", "max_connections=300"], **who)
        try:
            deadline = time.monotonic() + 60
            while not answers(copy.url("postgres")):
                assert time.monotonic() < deadline and process.poll() is None, "the standby did not come up"
                time.sleep(0.05)
            yield copy.url("postgres")
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=30)
