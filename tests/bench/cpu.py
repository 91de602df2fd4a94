"""CPU of processes as the kernel counts it: user and system, of each process and of all that it has started."""

from collections.abc import Mapping
from contextlib import suppress

import psutil

from tests.support.postgres import Server


def cpu_seconds(pid: int, *, with_children: bool = True) -> float:
    """Seconds of CPU that a process has used, with those of its children, those that have ended included."""
    process = psutil.Process(pid)
    if not with_children:
        times = process.cpu_times()
        return float(times.user + times.system)
    return sum(_own_and_ended(each) for each in (process, *process.children(recursive=True)))


class Meter:
    """What named processes use between two looks; each stands for all that it has started."""

    def __init__(self, pids: Mapping[str, int], client: int | None = None) -> None:
        """`client` is a process that has started the others: only its own time counts."""
        self._pids = dict(pids)
        self._client = client

    def read(self) -> dict[str, float]:
        """Seconds of CPU by name, since each began."""
        found = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        if self._client is not None:
            found["client"] = cpu_seconds(self._client, with_children=False)
        return found

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        return {name: now - before[name] for name, now in self.read().items()}


def postmaster(server: Server) -> int:
    """The process that all of a server's processes come from."""
    return int((server.postgres.data / "postmaster.pid").read_text().split()[0])


def by_database(server_pid: int) -> dict[str, float]:
    """Seconds of CPU of a PostgreSQL by what its backends are connected to; the rest is background and ended ones."""
    found = {"background": cpu_seconds(server_pid, with_children=False)}
    for process in psutil.Process(server_pid).children():
        with suppress(psutil.NoSuchProcess):
            title = process.cmdline()[0].split()  # "postgres: staking pool 127.0.0.1(51234) idle"
            database = title[2] if len(title) > 3 and "(" in title[3] else "background"
            found[database] = found.get(database, 0.0) + cpu_seconds(process.pid, with_children=False)
    return found


def _own_and_ended(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # it has just ended, and its parent has its time
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
