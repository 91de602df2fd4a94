"""Peers of the bench of flows, from PyPI, in an environment of their own: Temporal's development server, and DBOS."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.bench.cpu import Meter, postmaster
from tests.bench.environments import HERE, environment_of
from tests.support.ports import free_port
from tests.support.postgres import Server

Load = Literal["burst", "lone", "direct", "lone-direct"]


class Peer:
    """A process that is both client and worker, and does what it is asked to on its input."""

    def __init__(self, process: "subprocess.Popen[str]", meter: Meter) -> None:
        self._process = process
        self.meter = meter

    def burst(self, count: int, load: Load = "burst") -> float:
        """Seconds for so many workflows at once."""
        return float(self._ask(load, count))

    def lone(self, count: int, load: Load = "lone") -> list[float]:
        """Milliseconds of each of so many, one after the other."""
        return [float(each) for each in self._ask(load, count)]

    def _ask(self, load: Load, count: int) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{load} {count}\n")
        self._process.stdin.flush()
        return _answer(self._process)


@contextmanager
def running_temporal(directory: Path, *, in_memory: bool) -> Iterator[Peer]:
    """Server and worker; its data in a file, or in its memory alone."""
    programs, port = environment_of("peers"), free_port()
    argv = [
        str(programs / "temporal"),
        "server",
        "start-dev",
        "--headless",
        "--port",
        str(port),
        "--log-level",
        "never",
    ]
    if not in_memory:
        argv += ["--db-filename", str(directory / "temporal.db")]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_temporal(programs / "temporal", port)
        with _running(programs, "peers_temporal.py", f"127.0.0.1:{port}") as process:
            yield Peer(process, Meter({"worker": process.pid, "server": server.pid}))
    finally:
        server.kill()
        server.wait(timeout=30)


@contextmanager
def running_dbos(server: Server) -> Iterator[Peer]:
    """Client and worker, and a PostgreSQL that nobody else uses meanwhile."""
    with _running(environment_of("peers"), "peers_dbos.py", server.create("dbos")) as process:
        yield Peer(process, Meter({"worker": process.pid, "postgres": postmaster(server)}))


@contextmanager
def _running(programs: Path, script: str, target: str) -> Iterator["subprocess.Popen[str]"]:
    argv = [str(programs / "python"), str(HERE / script), target]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert _answer(process) == "ready"
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)


def _answer(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args!r} ended"
    return json.loads(line)


def _wait_for_temporal(program: Path, port: int) -> None:
    argv = [str(program), "operator", "cluster", "health", "--address", f"127.0.0.1:{port}"]
    deadline = time.monotonic() + 60
    while subprocess.run(argv, capture_output=True, timeout=30).returncode != 0:
        assert time.monotonic() < deadline, "Temporal's server did not answer within 60 s"
        time.sleep(0.2)
