"""``make bench NAME=api``: what the pool's API costs, beside a bare Flask endpoint that writes one row.

The whole stack runs as in production, on a durable PostgreSQL, but for workers and beat: what they do later would be
measured with the POST. 32 connections ask. A POST of a stake is held against an INSERT and COMMIT of one row, a
portfolio against an endpoint that asks two others for one row each; same web server, same settings, same PostgreSQL.
Rounds are interleaved; each figure is the median of its rounds, each ratio that of the ratios within a round. The CPU of
each program is what the kernel has counted for it and its children. The last line printed is JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

import psutil
import psycopg2
import requests

from apps.clients.ledger import movement
from apps.common.auth import HEADER
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from apps.local.stack import Stack
from tests.bench import bare_service
from tests.bench.load import Load, request, run_load
from tests.support.ports import free_port
from tests.support.postgres import Server, start_postgres
from tests.support.stack import environment, running_stack

CONNECTIONS = 32
USERS = 2_000
LOOKED_AT = 200  # users whose portfolio is asked for, each with this many requests:
REQUESTS_EACH = 3
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
# Later work, or a page for people: none of it answers a request.
IDLE = ("beat", "flower", "pool-worker", "relayer-worker")
PROGRAMS = ("pool", "ledger", "rewards", "protocols")


@dataclass(frozen=True)
class Round:
    """Answers a second, and the milliseconds of CPU of each program for each answer."""

    rate: float
    p50_ms: float
    cpu_ms: dict[str, float]


def main() -> int:
    with start_postgres(durable=True) as server, ExitStack() as places:
        with environment({"STAKING_POSTGRES_URL": server.url("postgres"), "HTTP_CLIENT_TIMEOUT_SEC": "10"}):
            stack = places.enter_context(running_stack({"STAKE_BATCH_THRESHOLD_WEI": str(10**9 * ETHER)}))
        for name in IDLE:
            stack.stop(name)
        bare = places.enter_context(bare_services(server))
        scenarios = _scenarios(stack, bare)
        database = psutil.Process(int((server.postgres.data / "postmaster.pid").read_text().split()[0]))
        for scenario in scenarios.values():
            scenario(1.0)  # connections, caches
        rounds: list[dict[str, Round]] = []
        for _ in range(ROUNDS):
            rounds.append({name: _measured(stack, database, scenario) for name, scenario in scenarios.items()})
            sys.stdout.write(", ".join(f"{name} {found.rate:.0f} / s" for name, found in rounds[-1].items()) + "\n")
            sys.stdout.flush()
    for name in scenarios:
        _tell(name, [found[name] for found in rounds])
    result = {
        "bench": "api",
        "ratios": {
            "stake_vs_bare": _ratio(rounds, "stake", "bare_insert"),
            "portfolio_vs_bare": _ratio(rounds, "portfolio", "bare_fan_out"),
        },
        "stake_cpu_ms": round(statistics.median(found["stake"].cpu_ms["pool"] for found in rounds), 2),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


@contextmanager
def bare_services(server: Server) -> Iterator[list[str]]:
    """One bare service that asks two others; yields the URLs, that one's first."""
    database_url = server.create("bare")
    connection = psycopg2.connect(database_url, connect_timeout=10)
    with connection, connection.cursor() as cursor:
        cursor.execute(bare_service.TABLE)
        cursor.execute(
            "INSERT INTO things (id, user_id, amount) SELECT 'looked-' || n, 'u' || n, 5 FROM generate_series(0, %s) n",
            (LOOKED_AT,),
        )
    connection.close()
    ports = [free_port() for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with ExitStack() as processes:
        for port, others in zip(ports, (urls[1:], [], []), strict=True):
            argv = [
                sys.executable,
                "-m",
                "tests.bench.bare_service",
                str(port),
                normalise_database_url(database_url),
                *others,
            ]
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            processes.callback(process.wait, 30)
            processes.callback(process.terminate)
        for url in urls[::-1]:
            _wait_for(f"{url}/things/looked-1")
        yield urls


def _scenarios(stack: Stack, bare: list[str]) -> dict[str, Callable[[float], Load]]:
    status = stack.status()
    pool, key = status["services"]["pool"], {HEADER: status["internal_api_key"]}
    users = [f"user-{number}" for number in range(USERS)]
    looked_at = [f"looked-{number}" for number in range(LOOKED_AT)]
    pool_id = str(status["pool_id"])
    stack.clients().ledger.post_batch(
        [movement(f"deposit:{user}", "deposit", pool_id, user, 1_000 * ETHER) for user in [*users, *looked_at]]
    )
    with requests.Session() as session:
        for number in range(REQUESTS_EACH):
            for user in looked_at:
                body = _stake(f"{user}:{number}", user)
                session.post(f"{pool}/v1/stakes", data=body, headers={**key, "Content-Type": "application/json"})
    numbers = count()

    def post(url: str, headers: dict[str, str]) -> Callable[[float], Load]:
        def ask() -> bytes:
            number = next(numbers)
            return request("POST", url, headers, _stake(f"stake:{number}", users[number % USERS]))

        return lambda seconds: run_load(url, ask, connections=CONNECTIONS, seconds=seconds, wanted=201)

    def get(url: Callable[[str], str], headers: dict[str, str]) -> Callable[[float], Load]:
        def ask() -> bytes:
            return request("GET", url(looked_at[next(numbers) % LOOKED_AT]), headers)

        return lambda seconds: run_load(url(""), ask, connections=CONNECTIONS, seconds=seconds, wanted=200)

    return {
        "bare_insert": post(f"{bare[0]}/things", {}),
        "stake": post(f"{pool}/v1/stakes", key),
        "bare_fan_out": get(lambda user: f"{bare[0]}/all/{user}", {}),
        "portfolio": get(lambda user: f"{pool}/v1/users/{user}/portfolio", key),
    }


def _stake(message_id: str, user_id: str) -> bytes:
    return json.dumps({"message_id": message_id, "user_id": user_id, "amount_wei": str(10**9)}).encode()


def _measured(stack: Stack, database: psutil.Process, scenario: Callable[[float], Load]) -> Round:
    before = _cpu(stack, database)
    load = scenario(SECONDS)
    after = _cpu(stack, database)
    if load.others:
        raise RuntimeError(f"answers of another status: {load.others}")
    return Round(
        load.rate,
        statistics.median(load.times) * 1000,
        {name: (after[name] - before[name]) * 1000 / load.good for name in after},
    )


def _cpu(stack: Stack, database: psutil.Process) -> dict[str, float]:
    """CPU seconds so far of each service, and of PostgreSQL with all its sessions."""
    processes = stack.processes()
    used = {name: _used(psutil.Process(int(processes[name]["pid"]))) for name in PROGRAMS}
    used["postgres"] = sum(_used(process) for process in [database, *database.children()])
    return used


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _ratio(rounds: list[dict[str, Round]], ours: str, bare: str) -> float:
    return round(statistics.median(found[ours].rate / found[bare].rate for found in rounds), 3)


def _tell(name: str, rounds: list[Round]) -> None:
    rate, p50 = (statistics.median(values) for values in zip(*((r.rate, r.p50_ms) for r in rounds), strict=True))
    cpu = {program: statistics.median(r.cpu_ms[program] for r in rounds) for program in rounds[0].cpu_ms}
    shown = "  ".join(f"{program} {ms:.2f}" for program, ms in cpu.items() if ms >= 0.01)
    sys.stdout.write(f"{name:<14} {rate:>7.0f} / s   p50 {p50:>6.1f} ms   CPU ms each: {shown}\n")


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not answer within 60 s")
        time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(main())
