"""``make bench NAME=ledger``: what a movement costs, against the limit (``pgbench -N``) and a Python peer (django-hordak).

All on one durable PostgreSQL, 8 clients, rounds interleaved; a ratio is taken within a round, and the median of them
told. The last line printed is JSON.
"""

import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import requests

from apps.clients.ledger import LedgerClient
from apps.clients.shapes.ledger import NewMovement
from apps.common.database import make_engine, make_sessions
from apps.common.settings import normalise_database_url
from apps.ledger import append_only_proof
from apps.ledger.service import LedgerService
from migrations import runner
from tests.bench.environments import environment_of
from tests.bench.pgbench import run_pgbench
from tests.support.ports import free_port
from tests.support.postgres import Server, start_postgres

CLIENTS = 8
USERS = 1_000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "8"))
BATCH = 10_000
POOL = "bench"
KEY = "bench-key"
HERE = Path(__file__).parent

Call = Callable[[random.Random], int]  # makes movements, tells how many
Client = Callable[[str], Call]

MOVEMENT = f"""
\\set user random(1, {USERS})
SELECT post_movement(gen_random_uuid()::text, 'deposit', '{POOL}', 'u' || :user, '@custody', 'available', 5, NULL, '');
"""
# The same without what ties balances to movements: what that costs is the difference.
UNTIED = (
    "ALTER TABLE balances DROP CONSTRAINT fk_balances_head",
    "ALTER TABLE movements DROP CONSTRAINT fk_movements_chain",
    "ALTER TABLE movements DROP CONSTRAINT uq_movements_books",
    "ALTER TABLE movements DROP CONSTRAINT uq_movements_previous_id",
    "DROP INDEX uq_movements_first",
)


def main() -> int:
    with start_postgres(durable=True) as server:
        peer = _peer_python()
        tpcb, hordak = server.create("tpcb"), server.create("hordak")
        ours, untied = ledger_database(server), ledger_database(server)
        for statement in UNTIED:
            _execute(untied, statement)
        run_pgbench(server, tpcb, "-i", "-q", "-s", "10")
        _run_peer(peer, "migrate", hordak, 0)
        load = ["-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS), "-M", "prepared", "-n"]
        with _http(ours) as base_url:
            scenarios: dict[str, Callable[[], float]] = {
                "pgbench": lambda: run_pgbench(server, tpcb, *load, "-N"),
                "sql": lambda: run_pgbench(server, ours, *load, script=MOVEMENT),
                "sql_untied": lambda: run_pgbench(server, untied, *load, script=MOVEMENT),
                "hordak": lambda: _hordak(peer, hordak),
                "service": lambda: _processes(_service_client, ours),
                "http": lambda: _processes(_http_client, base_url),
                "batch": lambda: _processes(_batch_client, ours),
            }
            rounds = [{name: run() for name, run in scenarios.items()} for _ in range(ROUNDS)]
    for name in scenarios:
        figures = [figure[name] for figure in rounds]
        sys.stdout.write(
            f"{name:<12} {statistics.median(figures):>10.0f} / s   {[round(figure) for figure in figures]}\n"
        )
    pairs = {
        "sql_vs_pgbench": ("sql", "pgbench"),
        "service_vs_hordak": ("service", "hordak"),
        "http_vs_pgbench": ("http", "pgbench"),
        "batch_vs_pgbench": ("batch", "pgbench"),
        "tied_vs_untied": ("sql", "sql_untied"),
    }
    ratios = {
        name: round(statistics.median(figure[a] / figure[b] for figure in rounds), 3) for name, (a, b) in pairs.items()
    }
    sys.stdout.write(f"tying balances to movements leaves {ratios.pop('tied_vs_untied'):.2f} of the untied rate\n")
    sys.stdout.write(json.dumps({"bench": "ledger", "ratios": ratios}) + "\n")
    return 0


def ledger_database(server: Server) -> str:
    url = server.create("ledger")
    runner.upgrade("ledger", url)
    for user in range(1, USERS + 1):
        _execute(
            url,
            f"SELECT post_movement('first:{user}', 'deposit', '{POOL}', 'u{user}', '@custody', 'available', 5, NULL, '')",
        )
    return url


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url, connect_timeout=10)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def _processes(client: Client, url: str) -> float:
    """Run a client in 8 processes that begin together; returns movements a second."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        start = manager.Barrier(CLIENTS)
        with spawn.Pool(CLIENTS) as pool:
            return sum(pool.starmap(_run_client, [(client, url, seed, start) for seed in range(CLIENTS)], 1)) / SECONDS


def _run_client(client: Client, url: str, seed: int, start: Any) -> int:
    draw = random.Random(seed)
    call = client(url)
    call(draw)  # imports and connections are made
    start.wait(timeout=120)
    made, deadline = 0, time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        made += call(draw)
    return made


def ledger_service(url: str) -> LedgerService:
    database_url = normalise_database_url(url)
    engine = make_engine(database_url, pool_size=1)
    poster = make_engine(database_url, pool_size=1, autocommit=True)
    return LedgerService(make_sessions(engine), poster, append_only_proof(engine), POOL)


def _service_client(url: str) -> Call:
    service = ledger_service(url)

    def call(draw: random.Random) -> int:
        assert service.post(deposit(draw)).status == 201
        return 1

    return call


def _batch_client(url: str) -> Call:
    service = ledger_service(url)
    return lambda draw: int(service.post_batch([deposit(draw) for _ in range(BATCH)]).posted)


def _http_client(url: str) -> Call:
    client = LedgerClient(url, KEY, timeout=60)

    def call(draw: random.Random) -> int:
        new = deposit(draw)
        client.post_movement(new.message_id, new.kind, POOL, new.user_id, new.amount_wei)
        return 1

    return call


def deposit(draw: random.Random) -> NewMovement:
    user = f"u{draw.randint(1, USERS)}"
    return NewMovement(message_id=str(uuid.uuid4()), kind="deposit", pool_id=POOL, user_id=user, amount_wei=5)


@contextmanager
def _http(url: str) -> Iterator[str]:
    """The ledger as it is run: its own web server, one process of 8 threads."""
    port = free_port()
    own = {"DATABASE_URL": url, "HTTP_PORT": str(port), "INTERNAL_API_KEY": KEY, "APP_ENV": "test"}
    environment = {**os.environ, **own}
    process = subprocess.Popen([sys.executable, "-m", "apps.ledger"], env=environment, stderr=subprocess.DEVNULL)
    base_url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(base_url):
            assert process.poll() is None, "the ledger ended at once"
            assert time.monotonic() < deadline, "the ledger did not answer within 60 s"
            time.sleep(0.1)
        yield base_url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(base_url: str) -> bool:
    try:
        return requests.get(f"{base_url}/status/ledger", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def _peer_python() -> str:
    """The Python of an environment that holds the pinned peer and nothing of ours."""
    return str(environment_of("hordak") / "python")


def _hordak(peer: str, url: str) -> float:
    """Transfers a second; each of 8 processes counts for SECONDS from when it is ready."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        return sum(threads.map(lambda seed: int(_run_peer(peer, "run", url, seed)), range(CLIENTS))) / SECONDS


def _run_peer(peer: str, what: str, url: str, seed: int) -> str:
    argv = [peer, str(HERE / "hordak_peer.py"), what, url, str(USERS), str(SECONDS), str(seed)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=600).stdout


if __name__ == "__main__":
    raise SystemExit(main())
