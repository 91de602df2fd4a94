"""``make bench NAME=rewards``: what an accrual costs beside the number of positions, and stake deltas beside pgbench.

One PostgreSQL with its syncs on; rounds are interleaved, and each ratio is the median of the ratios within a round. The
last line is JSON.
"""

import json
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from sqlalchemy import create_engine, text

from apps.clients.rewards import RewardsClient, stake_delta
from apps.clients.shapes.rewards import NewAccrual, NewClaim, NewStakeDeltas, StakeDelta
from apps.common.errors import InProgress
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER, GWEI
from apps.rewards import create_app
from apps.rewards.service import RewardsService
from migrations import runner
from tests.bench.pgbench import run_pgbench
from tests.support.postgres import start_postgres
from tests.support.protocols import serving
from tests.support.rewards import KEY, make_settings

CLIENTS = 8
ROUNDS = 3
SECONDS = 6
BATCH = 1_000  # by all clients at once; they queue for the pool's row
GREATEST_BATCH = 10_000  # by one caller after the other, as the pool's flows do
ACCRUALS = 200  # each round, at each size
LIMIT = ("-N", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS))
# The first one finds no floor remembered and scans; the last one is all that anybody has, and more, so that it scans, too.
LOSSES = {"a wei": 1, "two wei": 2, "a thousand gwei": 1000 * GWEI, "more than all stake": 2_000_000 * ETHER}
SIZES = {"thousand": 1_000, "million": 1_000_000}

names = count()


def main() -> int:
    with start_postgres(durable=True) as server:
        url = server.create("rewards")
        runner.upgrade("rewards", url)
        app = create_app(make_settings(url))
        service: RewardsService = app.extensions["service"]
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        _seed(url)
        pgbench_url = server.create("pgbench")
        run_pgbench(server, pgbench_url, "-i", "-q", "-s", "10")
        rounds: list[dict[str, float]] = []
        with serving(app) as http_url:
            callers = [RewardsClient(http_url, KEY, 60) for _ in range(CLIENTS)]
            for number in range(ROUNDS):
                found = {"pgbench": run_pgbench(server, pgbench_url, *LIMIT)}
                found |= _accruals(service)
                found["deltas"] = BATCH * _per_second(lambda _: _delta_batch(service, BATCH))
                found["deltas by one caller"] = GREATEST_BATCH * _per_second(
                    lambda _: _delta_batch(service, GREATEST_BATCH), clients=1
                )
                found["deltas over HTTP"] = BATCH * _per_second(lambda caller: _delta_http(callers[caller], BATCH))
                found["single deltas"] = _per_second(lambda _: _delta_batch(service, 1))
                rounds.append(found)
                _tell(f"round {number + 1}", found)
            losses = {}
            for name, wei in LOSSES.items():
                losses[name] = _loss(service, wei)
                _tell(f"a loss of {name} over 1,000,000 positions, in seconds", losses[name])
    ratios = {
        "accrual_1m_vs_1k": _median([each["million"] / each["thousand"] for each in rounds]),
        "deltas_vs_pgbench": _median([each["deltas"] / each["pgbench"] for each in rounds]),
    }
    longest = max(found["longest wait"] for found in losses.values())
    sys.stdout.write(
        json.dumps({"bench": "rewards", "ratios": ratios, "longest_wait_in_a_loss_sec": round(longest, 3)}) + "\n"
    )
    return 0


def _seed(url: str) -> None:
    """Two pools whose positions were not staked one by one: an accrual reads none of them, which is to be shown."""
    with create_engine(normalise_database_url(url)).begin() as connection:
        for pool_id, size in SIZES.items():
            connection.execute(
                text(
                    "INSERT INTO reward_positions"
                    " (pool_id, user_id, staked_wei, exiting_wei, index_snapshot, pending_scaled, claimed_wei)"
                    " SELECT :pool, 'user-' || n, :wei, 0, 0, 0, 0 FROM generate_series(1, :size) n"
                ),
                {"pool": pool_id, "size": size, "wei": ETHER},
            )
            connection.execute(
                text("INSERT INTO reward_pools (pool_id, weight_wei) VALUES (:pool, :weight)"),
                {"pool": pool_id, "weight": size * ETHER},
            )
        connection.execute(text("ANALYZE reward_positions"))


def _accruals(service: RewardsService) -> dict[str, float]:
    """Median seconds of one accrual at each size, taken in turns."""
    taken: dict[str, list[float]] = {pool_id: [] for pool_id in SIZES}
    for _ in range(ACCRUALS):
        for pool_id, times in taken.items():
            started = time.perf_counter()
            service.accrue(_accrual(f"a:{next(names)}", pool_id, 12_345_678))
            times.append(time.perf_counter() - started)
    return {pool_id: statistics.median(times) for pool_id, times in taken.items()}


def _loss(service: RewardsService, wei: int) -> dict[str, float]:
    """Seconds until a loss is answered, and what claims of the same pool waited at most meanwhile.

    One below a gwei is settled into nobody. From there on it is settled into everybody, piece by piece: the caller asks again
    under the same name until all is done, as the walk does.
    """
    waits: list[float] = []
    over = threading.Event()

    def claims() -> None:
        while not over.is_set():
            started = time.perf_counter()
            name = next(names)
            service.claim(
                NewClaim(message_id=f"c:{name}", pool_id="million", user_id=f"user-{1 + name * 7919 % 1_000_000}")
            )
            waits.append(time.perf_counter() - started)
            over.wait(0.01)

    claimer = threading.Thread(target=claims)
    claimer.start()
    started = time.perf_counter()
    calls = 0
    while not _answered(service, wei):
        calls += 1
    taken = time.perf_counter() - started
    over.set()
    claimer.join()
    waits.sort()
    return {
        "answered after": taken,
        "asked again": calls,
        "claims meanwhile": len(waits),
        "median wait": statistics.median(waits),
        "longest wait": waits[-1],
    }


def _answered(service: RewardsService, wei: int) -> bool:
    try:
        service.accrue(_accrual(f"loss:{wei}", "million", -wei))
    except InProgress:
        return False
    return True


def _delta_batch(service: RewardsService, size: int) -> None:
    items = [
        StakeDelta(message_id=f"d:{next(names)}", user_id=f"u{number}", staked_delta_wei=ETHER, exiting_delta_wei=0)
        for number in range(size)
    ]
    service.change_stakes(NewStakeDeltas(pool_id="staked", deltas=items))


def _accrual(message_id: str, pool_id: str, wei: int) -> NewAccrual:
    return NewAccrual(message_id=message_id, pool_id=pool_id, new_rewards_wei=wei, source="bench")


def _delta_http(client: RewardsClient, size: int) -> None:
    client.stake_deltas("staked", [stake_delta(f"d:{next(names)}", f"u{number}", ETHER) for number in range(size)])


def _per_second(work: Callable[[int], None], clients: int = CLIENTS) -> float:
    """Calls a second by all clients together, each client one after the other, in this one process."""
    until = time.perf_counter() + SECONDS

    def client(number: int) -> int:
        done = 0
        while time.perf_counter() < until:
            work(number)
            done += 1
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        done = sum(threads.map(client, range(clients)))
    return done / (time.perf_counter() - started)


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def _tell(what: str, found: dict[str, float]) -> None:
    figures = ", ".join(f"{name} {value:.6g}" for name, value in found.items())
    sys.stdout.write(f"{what}: {figures}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
