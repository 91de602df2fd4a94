"""``make bench NAME=ledger``: what a movement costs, against the limit (``pgbench -N``) and a Python peer (django-hordak);
and what a batch costs, against the same rows inserted bare.

All on one durable PostgreSQL, 8 clients, rounds interleaved; a ratio is taken within a round, and the median of them
told. As many rounds as fit into `BUDGET_SEC`, so that all of it takes three minutes at most. The last line printed is JSON.
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
from tests.bench.pgbench import run_pgbench
from tests.support.ports import free_port
from tests.support.postgres import Server, start_postgres

CLIENTS = 8
USERS = 1_000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
BUDGET_SEC = 150.0
BATCH = 10_000
POOL = "bench"
KEY = "bench-key"
HERE = Path(__file__).parent

Call = Callable[[random.Random], int]  # makes movements, tells how many
Client = Callable[[str, int], Call]

MOVEMENT = f"""
\\set user random(1, {USERS})
SELECT post_movement(gen_random_uuid()::text, 'deposit', '{POOL}', 'u' || :user, '@custody', 'available', 5, NULL, '');
"""
# The rows of a batch, as one statement, into tables with the same columns and indexes and none of the rules: no check, no
# foreign key, no guard, nobody's balance, no message_id looked up.
BARE_TABLES = """
CREATE TABLE bare_keys (LIKE message_keys INCLUDING INDEXES);
CREATE TABLE bare_movements (LIKE movements INCLUDING INDEXES INCLUDING GENERATED INCLUDING DEFAULTS);
CREATE SEQUENCE bare_ids;
"""
BARE = f"""
WITH given AS MATERIALIZED (
    SELECT n, nextval('bare_ids') AS id, gen_random_uuid()::text AS message_id FROM generate_series(1, {BATCH}) n
), keys AS (INSERT INTO bare_keys SELECT message_id FROM given)
INSERT INTO bare_movements (id, message_id, kind, pool_id, user_id, source, target, amount_wei, previous_id,
                            available_wei, reserved_wei, staked_wei, unstaking_wei)
SELECT id, message_id, 'deposit', '{POOL}', 'u' || (1 + n * 7919 % {USERS}), '@custody', 'available', 5, id, n, 0, 0, 0
FROM given
"""


def main() -> int:
    began = time.monotonic()
    with start_postgres(durable=True) as server, _clients() as clients:
        peer = _peer_python()
        tpcb, hordak = server.create("tpcb"), server.create("hordak")
        ours = ledger_database(server)
        _execute(ours, BARE_TABLES)
        run_pgbench(server, tpcb, "-i", "-q", "-s", "10")
        _run_peer(peer, "migrate", hordak, 0)
        load = ["-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS), "-M", "prepared", "-n"]
        with _http(ours) as base_url:
            scenarios: dict[str, Callable[[], float]] = {
                "pgbench": lambda: run_pgbench(server, tpcb, *load, "-N"),
                "sql": lambda: run_pgbench(server, ours, *load, script=MOVEMENT),
                "hordak": lambda: _hordak(peer, hordak),
                "service": lambda: clients(_service_client, ours),
                "http": lambda: clients(_http_client, base_url),
                "bare": lambda: clients(_bare_client, ours),
                "batch": lambda: clients(_batch_client, ours),
            }
            rounds: list[dict[str, float]] = []
            took = 0.0
            while len(rounds) < ROUNDS and time.monotonic() - began + took < BUDGET_SEC:
                before = time.monotonic()
                rounds.append({name: run() for name, run in scenarios.items()})
                took = time.monotonic() - before
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
        "batch_vs_bare": ("batch", "bare"),
    }
    ratios = {
        name: round(statistics.median(figure[a] / figure[b] for figure in rounds), 3) for name, (a, b) in pairs.items()
    }
    sys.stdout.write(json.dumps({"bench": "ledger", "ratios": ratios}) + "\n")
    return 0


def ledger_database(server: Server) -> str:
    url = server.create("ledger")
    runner.upgrade("ledger", url)
    _execute(
        url,
        f"SELECT post_movement('first:' || n, 'deposit', '{POOL}', 'u' || n, '@custody', 'available', 5, NULL, '')"
        f" FROM generate_series(1, {USERS}) n",
    )
    return url


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url, connect_timeout=10)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@contextmanager
def _clients() -> Iterator[Callable[[Client, str], float]]:
    """8 processes that run a client together, one of them after the other; what they give is movements a second."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, spawn.Pool(CLIENTS) as pool:
        start = manager.Barrier(CLIENTS)

        def run(client: Client, url: str) -> float:
            return sum(pool.starmap(_run_client, [(client, url, seed, start) for seed in range(CLIENTS)], 1)) / SECONDS

        yield run


def _run_client(client: Client, url: str, seed: int, start: Any) -> float:
    draw = random.Random(f"{seed}:{time.time_ns()}")
    call = client(url, seed)
    call(draw)  # imports and connections are made
    start.wait(timeout=120)
    made, deadline = 0.0, time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        began = time.monotonic()
        many = call(draw)
        # Of a call that ends after the deadline only the part before it counts: a batch takes long.
        made += min(1.0, (deadline - began) / (time.monotonic() - began)) * many
    return made


def ledger_service(url: str) -> LedgerService:
    database_url = normalise_database_url(url)
    engine = make_engine(database_url, pool_size=1)
    poster = make_engine(database_url, pool_size=1, autocommit=True)
    return LedgerService(make_sessions(engine), poster, append_only_proof(engine), POOL)


def _service_client(url: str, seed: int) -> Call:
    service = ledger_service(url)

    def call(draw: random.Random) -> int:
        assert service.post(deposit(draw)).status == 201
        return 1

    return call


def _batch_client(url: str, seed: int) -> Call:
    """Each client has users of its own: of two batches that share one, the later waits for the earlier to commit."""
    service = ledger_service(url)
    return lambda draw: int(service.post_batch([deposit(draw, f"{seed}:") for _ in range(BATCH)]).posted)


def _bare_client(url: str, seed: int) -> Call:
    connection = psycopg2.connect(url, connect_timeout=10)
    connection.autocommit = True
    cursor = connection.cursor()

    def call(draw: random.Random) -> int:
        cursor.execute(BARE)
        return BATCH

    return call


def _http_client(url: str, seed: int) -> Call:
    client = LedgerClient(url, KEY, timeout=60)

    def call(draw: random.Random) -> int:
        new = deposit(draw)
        client.post_movement(new.message_id, new.kind, POOL, new.user_id, new.amount_wei)
        return 1

    return call


def deposit(draw: random.Random, whose: str = "") -> NewMovement:
    user = f"u{whose}{draw.randint(1, USERS)}"
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
    """The Python of an environment that holds the pinned peer and nothing of ours; made once."""
    home = Path(sys.prefix) / "bench-hordak"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=120)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]
        subprocess.run([*install, str(HERE / "hordak_requirements.txt")], check=True, timeout=600)
        (home / "installed").touch()
    return str(python)


def _hordak(peer: str, url: str) -> float:
    """Transfers a second; each of 8 processes counts for SECONDS from when it is ready."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        return sum(threads.map(lambda seed: int(_run_peer(peer, "run", url, seed)), range(CLIENTS))) / SECONDS


def _run_peer(peer: str, what: str, url: str, seed: int) -> str:
    argv = [peer, str(HERE / "hordak_peer.py"), what, url, str(USERS), str(SECONDS), str(seed)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=600).stdout


if __name__ == "__main__":
    raise SystemExit(main())
