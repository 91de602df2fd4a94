"""What each part of the system costs, in milliseconds of CPU for one of its things, on a whole stack with two hosts' worth
of workers."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import local

from apps.clients.ledger import movement
from apps.clients.pool import PoolClient
from apps.clients.rewards import RewardsClient
from apps.common.wei import ETHER
from apps.local.bff import Bff
from apps.local.programs import ROOT, Programs
from apps.local.stack import Stack
from tests.bench.cpu import Meter, by_database, cpu_seconds
from tests.support.raw import raw
from tests.support.stack import running_stack
from tests.support.three_hosts import asking

MEMBERS = 500
CALLERS = 8
AMOUNT = ETHER // 10
REPORTS = 6
ACCRUALS = 300
IDLE_SEC = 8.0
# One batch, once all of them have been accepted: what comes before it is told apart from what comes after.
SETTINGS = {"STAKE_BATCH_THRESHOLD_WEI": str(MEMBERS * AMOUNT), "STAKE_BATCH_MAX_WAIT_SEC": "3600"}
KEEP = ("pool", "ledger", "rewards")
SIZES = "SELECT " + ", ".join(f"pg_database_size('{name}')" for name in KEEP)
SMALLEST_MS = 0.02  # less is not told: the clock ticks in hundredths of a second

names = count()


class Costs:
    """A stack, and what its processes use: for a thing that is done so often, less what they would have used idle."""

    def __init__(self, stack: Stack, second: "subprocess.Popen[bytes]") -> None:
        self.bff = Bff(stack, timeout_sec=600)
        status = stack.status()
        self._pool_url, self._key = status["services"]["pool"], status["internal_api_key"]
        self._rewards_url = status["services"]["rewards"]
        pids = {name: info["pid"] for name, info in stack.processes().items() if info["pid"]}
        self._postgres = pids.pop("postgres")
        self._second = second.pid
        self._databases = status["database_urls"]
        self._sizes = dict(zip(KEEP, asking(self._databases["pool"])(SIZES)[0], strict=True))
        self._meter = Meter(pids)
        self._idle: dict[str, float] = {}

    def measure(self) -> None:
        bff, users = self.bff, [f"cost-{number}" for number in range(MEMBERS)]
        bff.oracle.fund(bff.custody, MEMBERS * AMOUNT)
        deposits = [movement(f"deposit:{user}", "deposit", bff.pool_id, user, AMOUNT) for user in users]
        bff.clients.ledger.post_batch(deposits)
        self._rest()
        self._tell("POST /v1/stakes", MEMBERS, lambda: self._each(users, self._stake))
        self._tell("member of a stake batch, queued to completed", MEMBERS, self._until_staked)
        self._tell_storage()
        self._tell("GET /v1/users/{id}/portfolio", MEMBERS, lambda: self._each(users, self._portfolio))
        self._tell("report met by the walk: accrual, booking, block closed", REPORTS, self._reports)
        self._tell("accrual in rewards alone", ACCRUALS, self._accruals)

    def _tell_storage(self) -> None:
        """What a stake leaves behind in the databases, its history included."""
        (found,) = asking(self._databases["pool"])(SIZES)
        sizes = dict(zip(KEEP, found, strict=True))
        by_name = ", ".join(f"{name} {(size - self._sizes[name]) / MEMBERS / 1000:.1f}" for name, size in sizes.items())
        sys.stdout.write(f"kilobytes that are kept of a completed stake, by database: {by_name}\n")

    def _read(self) -> dict[str, float]:
        databases = {f"postgres/{name}": used for name, used in by_database(self._postgres).items()}
        return {**self._meter.read(), **databases, "pool-worker": self._workers()}

    def _workers(self) -> float:
        """Of both hosts together."""
        return self._meter.read()["pool-worker"] + cpu_seconds(self._second)

    def _rest(self) -> None:
        """What the stack uses without being asked for anything, by second."""
        time.sleep(IDLE_SEC)
        before = self._read()
        time.sleep(IDLE_SEC)
        self._idle = {name: (now - before.get(name, 0.0)) / IDLE_SEC for name, now in self._read().items()}

    def _tell(self, what: str, times: int, work: Callable[[], object]) -> None:
        before, started = self._read(), time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        used = {name: now - before.get(name, 0.0) for name, now in self._read().items()}
        each = {name: (used[name] - self._idle.get(name, 0.0) * seconds) * 1000 / times for name in used}
        told = {name: ms for name, ms in each.items() if ms >= SMALLEST_MS and name not in {"anvil", "flower"}}
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(told.items(), key=lambda item: -item[1]))
        sys.stdout.write(
            f"{what}: {sum(told.values()):.2f} ms of CPU each, {seconds * 1000 / times:.1f} ms apart ({parts})\n"
        )
        sys.stdout.flush()

    def _each(self, users: list[str], call: Callable[[PoolClient, str], object]) -> None:
        mine = local()

        def one(user: str) -> None:
            if not hasattr(mine, "pool"):
                mine.pool = PoolClient(self._pool_url, self._key, 30)
            call(mine.pool, user)

        with ThreadPoolExecutor(CALLERS) as threads:
            list(threads.map(one, users))

    def _stake(self, pool: PoolClient, user: str) -> None:
        pool.stake(f"stake:{user}", user, AMOUNT)

    def _portfolio(self, pool: PoolClient, user: str) -> None:
        pool.portfolio(user)

    def _until_staked(self) -> None:
        bff = self.bff
        bff.wait(
            "all stakes to be in the books",
            lambda: int(raw(bff.clients.ledger).totals(bff.pool_id)["staked_wei"]),
            lambda staked: staked == MEMBERS * AMOUNT,
        )

    def _reports(self) -> None:
        for _ in range(REPORTS):
            last = self.bff.oracle.rebase(ETHER // 1000)
        self.bff.walked_to(last.block_number)

    def _accruals(self) -> None:
        """Into a pool of its own name: the books of the real one stay what the chain says."""
        rewards = RewardsClient(self._rewards_url, self._key, 30)
        for _ in range(ACCRUALS):
            rewards.accrue(f"bench:{next(names)}", "bench", 1_000_000, "bench")


def costs() -> None:
    """Print what each thing costs, by process and database."""
    with running_stack(SETTINGS) as stack, _second_host(stack) as second:
        Costs(stack, second).measure()


@contextmanager
def _second_host(stack: Stack) -> Iterator["subprocess.Popen[bytes]"]:
    """Another host's pool workers on the same database and broker."""
    (program,) = (each for each in Programs(stack.home, stack.home.load()).services() if each.name == "pool-worker")
    argv = [argument.replace("pool@", "pool-second@") for argument in program.command()]
    process = subprocess.Popen(
        argv, env=program.environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


if __name__ == "__main__":
    costs()
