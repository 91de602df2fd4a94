"""``make bench NAME=hosts``: two hosts on one PostgreSQL and one broker, what each part costs, and what gives out first.

A host is a process group: a worker of two processes and a beat. On one machine two of them share its cores, disk, clock and
loopback, so that what is shown is neither speed nor a network between them: it is that both do the work, that nothing is done
twice, that one takes over what the other had when it was killed, and what a second one costs. The last line is JSON.
"""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from apps.flow.hints import publisher
from tests.bench.cpu import Meter, postmaster
from tests.bench.hosts_costs import costs
from tests.bench.pgbench import run_pgbench
from tests.support.postgres import Server, start_postgres
from tests.support.scratch import scratch
from tests.support.three_hosts import Ask, Broker, Host, asking, running_broker, running_host, wait_until
from tests.support.three_steps import NEXT, QUEUE, TASK, environment, make_tables

FLOWS = 2_000
HINTS = 2_000
KILLED_FLOWS, SEEN = 600, 300  # each effect a commit; the one is killed when it has taken so many
LEASE_SEC = 3.0
COMMITS_SEC = 6

PLACE = """
INSERT INTO threes (id, status, next_run_at) SELECT %s || ':' || n, 'first', now() FROM generate_series(1, %s) n
"""
UNDER_WAY = "SELECT count(*) FROM threes WHERE next_run_at IS NOT NULL"
BY_HOST = "SELECT host, count(*) FROM effects GROUP BY 1 ORDER BY 1"
DOUBLED = """
SELECT count(*) FROM (
    SELECT FROM three_events WHERE type = 'checkpoint' GROUP BY subject_id, status HAVING count(*) > 1
) twice
"""
COMMIT = "INSERT INTO rows VALUES (1);"


def main() -> int:
    with ExitStack() as parts:
        directory = Path(parts.enter_context(scratch(on_disk=True)))
        server = parts.enter_context(start_postgres(durable=True))
        broker = parts.enter_context(running_broker(directory))
        hint_ms = _hints(broker)
        alone, together = (_bursts(server, broker, directory, hosts) for hosts in (("a",), ("a", "b")))
        takeover_sec = _takeover(server, broker, directory)
        commits = _commits(server)
    costs()
    found = {
        "bench": "hosts",
        "cpu_ms_per_flow": {"one_host": alone, "two_hosts": together},
        "hint_broker_ms": hint_ms,
        "takeover_sec": takeover_sec,
        "commits_per_s": commits,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _bursts(server: Server, broker: Broker, directory: Path, names: tuple[str, ...]) -> float:
    """Milliseconds of CPU of a flow of three steps, with so many hosts."""
    url, ask = _database(server)
    with ExitStack() as parts:
        settings = environment(url, broker.url)
        hosts = {name: parts.enter_context(running_host(name, settings, directory)) for name in names}
        _run(ask, broker, "warm", 200)
        meter = Meter({**_pids(hosts), "broker": broker.process.pid, "postgres": postmaster(server)})
        before, started = meter.read(), time.perf_counter()
        _run(ask, broker, "burst", FLOWS)
        seconds = time.perf_counter() - started
        used = {name: each * 1000 / FLOWS for name, each in meter.since(before).items()}
    total = sum(used.values())
    by_part = ", ".join(f"{name} {ms:.2f}" for name, ms in used.items())
    sys.stdout.write(
        f"{len(names)} host(s): {FLOWS / seconds:.0f} flows/s, {total:.2f} ms of CPU each,"
        f" {total / len(NEXT):.2f} a step ({by_part})\n"
    )
    sys.stdout.flush()
    return round(total, 3)


def _takeover(server: Server, broker: Broker, directory: Path) -> float:
    """Kill one of two hosts in the middle of a burst; the seconds in which the other one ends it."""
    url, ask = _database(server)
    settings = environment(url, broker.url, lease_sec=LEASE_SEC)
    with (
        running_host("a", {**settings, "THREE_HOST": "a"}, directory) as first,
        running_host("b", {**settings, "THREE_HOST": "b"}, directory),
    ):
        ask(PLACE, "killed", KILLED_FLOWS)
        publisher(broker.url, QUEUE)(TASK, None)
        wait_until(lambda: len(ask(BY_HOST)) == 2 and ask(BY_HOST)[0][1] > SEEN, "both hosts are at work")
        first.kill()
        left, started = int(ask(UNDER_WAY)[0][0]), time.perf_counter()
        wait_until(lambda: ask(UNDER_WAY)[0][0] == 0, "the second host has ended all")
        seconds = time.perf_counter() - started
    effects: dict[str, int] = dict(ask(BY_HOST))
    assert sum(effects.values()) == KILLED_FLOWS * len(NEXT)
    assert ask(DOUBLED) == [(0,)]
    sys.stdout.write(
        f"one of two hosts killed with {left} of {KILLED_FLOWS} flows under way: the other one ended them in {seconds:.1f} s"
        f" (leases of {LEASE_SEC:g} s); effects by host {effects}, none twice\n"
    )
    sys.stdout.flush()
    return round(seconds, 1)


def _hints(broker: Broker) -> float:
    """Milliseconds of the broker's CPU for a hint that is sent, and nobody takes."""
    publish = publisher(broker.url, "nobody")
    publish(TASK, None)
    meter = Meter({"broker": broker.process.pid})
    before = meter.read()
    for number in range(HINTS):
        publish(TASK, str(number))
    each = meter.since(before)["broker"] * 1000 / HINTS
    sys.stdout.write(f"a hint: {each:.3f} ms of the broker's CPU\n")
    return round(each, 3)


def _commits(server: Server) -> float:
    """How often a second eight writers commit a row of their own: what this disk can keep, whatever the cores do."""
    url = server.create("commits")
    asking(url)("CREATE TABLE rows (number int)")
    load = ["-n", "-M", "prepared", "-c", "8", "-j", "2", "-T", str(COMMITS_SEC)]
    found = run_pgbench(server, url, *load, script=COMMIT)
    sys.stdout.write(f"commits of one row, by 8 writers: {found:.0f} / s\n")
    return round(found)


def _run(ask: Ask, broker: Broker, name: str, count: int) -> None:
    ask(PLACE, name, count)
    publisher(broker.url, QUEUE)(TASK, None)
    wait_until(lambda: ask(UNDER_WAY)[0][0] == 0, "every flow has ended")


def _pids(hosts: dict[str, Host]) -> dict[str, int]:
    return {
        **{f"worker {name}": host.worker.pid for name, host in hosts.items()},
        **{f"beat {name}": host.beat.pid for name, host in hosts.items()},
    }


def _database(server: Server) -> tuple[str, Ask]:
    url = server.create("three")
    make_tables(url)
    return url, asking(url)


if __name__ == "__main__":
    raise SystemExit(main())
