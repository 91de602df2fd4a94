"""Hosts of the flow of three steps: each a worker and a beat of its own, a process group that dies as a whole; and the
broker that they share."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from kombu import Connection

from apps.local import tools
from tests.support.ports import free_port

Ask = Callable[..., list[tuple[Any, ...]]]

ROOT = Path(__file__).parents[2]
CELERY = (sys.executable, "-m", "celery", "-A", "tests.support.three_steps")
QUIET = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle")


class Broker:
    """A Valkey as the desk's: appended to a file, synced each second."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        listen = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        argv = [str(tools.valkey_server()), *listen, "--appendonly", "yes", "--appendfsync", "everysec"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "the broker answers")

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the broker ended at once"
        try:
            with Connection(self.url, connect_timeout=1) as connection:
                connection.ensure_connection(max_retries=1, timeout=1)
        except Exception:  # noqa: BLE001  # whatever it is, it does not answer yet
            return False
        return True


class Host:
    """One machine's share: a worker of two processes, and a beat."""

    def __init__(self, name: str, environment: Mapping[str, str], log: Path) -> None:
        worker = [*CELERY, "worker", "-Q", "three", "-c", "2", "-n", f"{name}@%h", *QUIET]
        beat = [*CELERY, "beat", "--loglevel", "WARNING"]
        self._log = log.open("wb")
        self.worker = self._start(worker, environment, 0)
        self.beat = self._start(beat, environment, self.worker.pid)

    def kill(self) -> None:
        """SIGKILL everything of this host at once."""
        os.killpg(self.worker.pid, signal.SIGKILL)
        for process in (self.worker, self.beat):
            process.wait(timeout=30)
        self._log.close()

    def _start(self, argv: list[str], environment: Mapping[str, str], group: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            argv, env=environment, cwd=ROOT, stdout=self._log, stderr=self._log, process_group=group
        )


@contextmanager
def running_broker(directory: Path) -> Iterator[Broker]:
    broker = Broker(directory)
    try:
        yield broker
    finally:
        broker.process.kill()
        broker.process.wait(timeout=30)


@contextmanager
def running_host(name: str, environment: Mapping[str, str], directory: Path) -> Iterator[Host]:
    """A host until the block ends, or until it is killed in it."""
    host = Host(name, environment, directory / f"{name}.log")
    try:
        yield host
    finally:
        if host.worker.poll() is None:
            host.kill()


def asking(url: str) -> Ask:
    """A function that runs a statement on a connection of its own, and returns what rows it has."""
    connection = psycopg2.connect(url, connect_timeout=10)
    connection.autocommit = True

    def ask(statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []

    return ask


def wait_until(holds: Callable[[], bool], what: str, *, limit_sec: float = 300.0, every_sec: float = 0.05) -> None:
    deadline = time.monotonic() + limit_sec
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit_sec:g} s: {what}"
        time.sleep(every_sec)
