"""A real PostgreSQL server for a test session, in a directory of its own; gone when the session ends."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql

from apps.local import postgres as local
from apps.local.postgres import Postgres, unprivileged_account
from tests.support import tally
from tests.support.ports import free_port
from tests.support.scratch import scratch


class Server:
    """A running server that makes databases by name, cheaply, from migrated templates."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres
        self._made = 0
        self._connection: Any = None
        self._left: list[str] = []

    def url(self, database: str) -> str:
        return self.postgres.url(database)

    def create(self, prefix: str, template: str = "template1") -> str:
        """Make a database and return its URL."""
        tally.count("databases")
        self._made += 1
        name = f"{prefix}_{self._made}"
        # By files: half the time of copying through the log, which a server without syncs has no use for.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._run(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop(self, urls: Sequence[str]) -> None:
        """End all connections to these databases, and remove those of the call before; one that is gone is passed over.

        A server that removes a database at once, whose connections it has just ended, sleeps a tenth of a second until
        they are gone.
        """
        names = [url.rsplit("/", 1)[1] for url in urls]
        terminate = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY ({})")
        self._run(terminate.format(sql.Literal(names)))
        for name in self._left:
            self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        self._left = names

    def close(self) -> None:
        """Give up the connection on which databases are made and removed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, statement: sql.Composed) -> None:
        if self._connection is None:
            self._connection = psycopg2.connect(self.url("postgres"), connect_timeout=10)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def start_postgres(*, durable: bool = False) -> Iterator[Server]:
    """Start a server. `durable` is for measurements: tests throw the data away, and only a crash of the machine would
    need the syncs."""
    tally.count("database servers")
    with scratch(on_disk=durable) as directory:
        postgres = Postgres(directory / "postgres", free_port(), "test")
        postgres.prepare()
        account = unprivileged_account()
        process = subprocess.Popen(
            [*postgres.command(), "-c", f"fsync={'on' if durable else 'off'}", "-c", "max_connections=300"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
        )
        try:
            deadline = time.monotonic() + 60
            while not local.answers(postgres.url("postgres")):
                assert process.poll() is None, "PostgreSQL ended at once"
                assert time.monotonic() < deadline, "PostgreSQL did not answer within 60 s"
                time.sleep(0.05)
            server = Server(postgres)
            _make_logins_cheap(server)
            yield server
            server.close()
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: what a last checkpoint would write is thrown away anyway
            process.wait(timeout=30)


def _make_logins_cheap(server: Server) -> None:
    """A run opens thousands of connections, and hashing the password takes longer than the rest of each."""
    connection = psycopg2.connect(server.url("postgres"), connect_timeout=10)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET scram_iterations = 1")
        cursor.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                sql.Identifier(local.USER), sql.Literal(server.postgres.password)
            )
        )
    connection.close()
