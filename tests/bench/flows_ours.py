"""Ours, for the bench of flows: three steps that do nothing on `apps.flow`, with Celery, a broker and PostgreSQL."""

import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import local
from typing import Any

import psycopg2

from apps.flow.hints import publisher
from tests.bench.cpu import Meter, postmaster
from tests.support.postgres import Server
from tests.support.three_hosts import running_broker, running_host, wait_until
from tests.support.three_steps import QUEUE, TASK, environment, make_tables

CALLERS = 8
LOOK_EVERY_SEC = 0.02
LONE_LOOK_EVERY_SEC = 0.002

INSERT = "INSERT INTO threes (id, status, next_run_at) VALUES (%s, 'first', now())"
UNDER_WAY = "SELECT EXISTS (SELECT FROM threes WHERE next_run_at IS NOT NULL)"
ENDED = "SELECT next_run_at IS NULL FROM threes WHERE id = %s"


class Ours:
    """One worker of two processes and a beat; the client is this process."""

    def __init__(self, database_url: str, broker_url: str, meter: Meter) -> None:
        self.meter = meter
        self._url = database_url
        self._publish = publisher(broker_url, QUEUE)
        self._mine = local()

    def burst(self, count: int) -> float:
        """Start so many flows, each in a transaction of its own; seconds from the first start to the last end."""
        started = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as threads:
            list(threads.map(lambda _: self._begin(), range(count)))
        wait_until(lambda: not self._ask(UNDER_WAY)[0], "every flow has ended", every_sec=LOOK_EVERY_SEC)
        return time.perf_counter() - started

    def lone(self, count: int) -> list[float]:
        """Milliseconds of each, one after the other, from the commit of its row to when its end is known."""
        return [self._lone() for _ in range(count)]

    def _lone(self) -> float:
        row_id = self._insert()
        started = time.perf_counter()
        self._publish(TASK, None)
        wait_until(lambda: bool(self._ask(ENDED, row_id)[0]), "the flow has ended", every_sec=LONE_LOOK_EVERY_SEC)
        return (time.perf_counter() - started) * 1000

    def _begin(self) -> None:
        self._insert()
        self._publish(TASK, None)

    def _insert(self) -> str:
        row_id = str(uuid.uuid4())
        self._cursor().execute(INSERT, (row_id,))
        return row_id

    def _ask(self, statement: str, *values: str) -> tuple[Any, ...]:
        cursor = self._cursor()
        cursor.execute(statement, values)
        found: tuple[Any, ...] = cursor.fetchone()
        return found

    def _cursor(self) -> Any:
        """Each thread has a connection, as the threads of a service have."""
        if not hasattr(self._mine, "cursor"):
            connection = psycopg2.connect(self._url, connect_timeout=10)
            connection.autocommit = True
            self._mine.cursor = connection.cursor()
        return self._mine.cursor


@contextmanager
def running_ours(server: Server, directory: Path) -> Iterator[Ours]:
    """Until the block ends; every process that takes part is counted."""
    url = server.create("three")
    make_tables(url)
    with ExitStack() as parts:
        broker = parts.enter_context(running_broker(directory))
        host = parts.enter_context(running_host("ours", environment(url, broker.url), directory))
        pids = {"worker": host.worker.pid, "beat": host.beat.pid, "broker": broker.process.pid}
        yield Ours(url, broker.url, Meter({**pids, "postgres": postmaster(server)}, client=os.getpid()))
