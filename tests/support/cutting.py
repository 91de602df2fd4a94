"""A house whose tasks run in processes of their own, each killed or frozen at the next boundary that this was not done at
yet: before and after each commit, each call of another service, each step."""

import os
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import configure_mappers

from apps.common import crashpoint
from apps.common.auth import HEADER
from apps.common.doorbell import doorbell_of
from tests.support.flows import DEAD_BROKER, Flows
from tests.support.protocols import KEY
from tests.support.ratchet import BATCHES, BATCHING, CLAIMS, REQUESTS, WALK, Ratchet, Watch, watching
from tests.support.relayer import OPERATOR_KEY
from tests.support.workers import Mother, worker_environment

NAME = "cut"  # what the killed processes call themselves at the database
ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / name) + os.sep for name in ("apps", "relayer", "tasks"))


@dataclass
class Cutting:
    flows: Flows
    watch: Watch
    log: Path
    mother: Mother
    ratchet: Ratchet
    cuts: Counter[str] = field(default_factory=Counter)
    frozen: Counter[str] = field(default_factory=Counter)

    def run(self, work: Callable[[], None], point: str = "", *, times: int = 1) -> str | None:
        """Run it to its end, or to its death, so often side by side; returns what it said where it was killed."""
        self._bury()
        self.watch.time_passes()
        self.log.write_text("")
        for _ in range(times):
            self.mother.start(work, point)
        ends = set(self.mother.ended().values())
        told = self.log.read_text()
        if ends == {-signal.SIGKILL}:
            self.cuts[told.rsplit("killed at ", 1)[1].strip()] += 1
            return told
        assert ends == {0}, told
        return None

    def cut(self, name: str, work: Callable[[], None]) -> int:
        """Run it again and again, each time killed at the next boundary, until it comes to its end."""

        def attempt(known: frozenset[str]) -> str | None:
            told = self.run(partial(die_at_first_new, known, work))
            return None if told is None else new_in(told)

        return self.ratchet.work(name, attempt)

    def freeze(self, name: str, work: Callable[[], None], at: frozenset[str]) -> int:
        """Run it again and again, each time frozen past its lease at the next boundary of those `at` which it may be, while
        another process does the same to its end; then it goes on with what it was at. None of those may be within a
        transaction, which the database would end."""

        def attempt(known: frozenset[str]) -> str | None:
            self._bury()
            self.watch.time_passes()
            self.log.write_text("")
            frozen = self.mother.start(partial(stop_at_first_new, known, work, at))
            ended = self.mother.halted(frozen)
            if ended is None:
                self.watch.time_passes()
                ended = self.mother.halted(self.mother.start(work))
                os.kill(frozen, signal.SIGCONT)
                assert self.mother.ended() == {frozen: 0}, self.log.read_text()
            told = self.log.read_text()
            assert ended == 0, told
            if NEW not in told:
                return None
            point = new_in(told)
            self.frozen[point.split()[0]] += 1
            return point

        return self.ratchet.work(name, attempt)

    def task(self, name: str) -> int:
        return self.cut(name, partial(run_task, name))

    def settle(self) -> None:
        """Cut every task that is due; once nothing is under way any more, a walk that only closes blocks is run as it is."""
        self.watch.settle(lambda task: self.plainly(task) if self.only_closes_blocks(task) else self.task(task))

    def plainly(self, task: str) -> None:
        self.run(partial(run_task, task))

    def only_closes_blocks(self, task: str) -> bool:
        return task == WALK and not self.flows._under_way()

    def _bury(self) -> None:
        """The dead are gone from the databases, and so are their locks."""
        query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
        while self.watch.ask(query, NAME):
            time.sleep(0.002)


NEW = "new boundary: "


def die_at_first_new(known: frozenset[str], work: Callable[[], None]) -> None:
    """Do the work, and die at its first boundary that is not among those known."""
    _at_first_new(known, lambda: True)
    work()


def stop_at_first_new(known: frozenset[str], work: Callable[[], None], at: frozenset[str]) -> None:
    """Do the work, and stop once, as a frozen process does, at the first boundary of those `at` which it may be."""

    def stop() -> bool:
        os.kill(os.getpid(), signal.SIGSTOP)
        pytest.MonkeyPatch().setattr(crashpoint, "is_here", lambda _: False)
        return False

    _at_first_new(known, stop, at)
    work()


def _at_first_new(known: frozenset[str], act: Callable[[], bool], at: frozenset[str] | None = None) -> None:
    """From now on `act` at the first boundary that is not among those known, and die there if it says so. One is known by
    its name, by the lines of ours that lead there, and by how often they have led there in this process."""
    times: Counter[str] = Counter()

    def is_here(name: str) -> bool:
        place = f"{name} {_way_here()}"
        times[place] += 1
        point = f"{place} {times[place]}"
        if point in known or (at is not None and name not in at):
            return False
        os.write(2, f"{NEW}{point}\n".encode())
        return act()

    pytest.MonkeyPatch().setattr(crashpoint, "is_here", is_here)


def new_in(told: str) -> str:
    """The boundary that was new, out of what the process said."""
    return told.rsplit(NEW, 1)[1].splitlines()[0]


def _way_here() -> str:
    """The last line of ours outside of `apps/common`, for people; and the mark of all those that led there."""
    lines = []
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(OURS):
            lines.append(f"{path.removeprefix(str(ROOT))}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]  # the last one has none
    last = next((line for line in lines if not line.startswith("/apps/common/")), lines[-1])
    return f"{last} {zlib.crc32(' '.join(lines).encode()):08x}"


def run_task(name: str, *given: str) -> None:
    """One message of a task, as a worker takes it."""
    import relayer.tasks
    import tasks.entry

    app = relayer.tasks.celery if name.startswith("relayer.") else tasks.celery
    app.conf.update(broker_url=os.environ["CELERY_BROKER_URL"])
    app.tasks[name](*given)


def post(path: str, body: Mapping[str, str] | None = None) -> None:
    """A POST at the pool."""
    answer = _pool_app().test_client().post(path, json=body, headers={HEADER: KEY})
    assert answer.status_code < 300, answer.get_json()


@contextmanager
def cutting(flows: Flows, directory: Path, **settings: str) -> Iterator[Cutting]:
    """`settings` are those of the killed processes, by their names in the environment."""
    pool, desk = flows.context.settings, flows.desk
    environment = {
        **worker_environment(flows.databases["relayer"], (desk.rpc_url,)),
        "SIGNER_KEYS": OPERATOR_KEY,
        "APP_ENV": "test",
        "PGAPPNAME": NAME,
        "DATABASE_URL": flows.databases["pool"],
        "INTERNAL_API_KEY": KEY,
        "CELERY_BROKER_URL": DEAD_BROKER,
        "LEDGER_BASE_URL": pool.ledger_url,
        "REWARDS_BASE_URL": pool.rewards_url,
        "PROTOCOLS_BASE_URL": pool.protocols_url,
        "RELAYER_BASE_URL": pool.relayer_url,
        "HTTP_CLIENT_TIMEOUT_SEC": str(pool.http_timeout_sec),
        "CUSTODY_ETH_ADDRESS": desk.operator,
        "RELAYER_OPERATOR_ADDRESS": desk.operator,
        "LIDO_STETH_ADDRESS": desk.deployment.steth,
        "LIDO_WITHDRAWAL_QUEUE_ADDRESS": desk.deployment.withdrawal_queue,
        "CONFIRMATIONS": "1",
        "MAX_VALUE_PER_DAY_WEI": str(10**30),
        "STAKE_BATCH_THRESHOLD_WEI": "1",
        **settings,
    }
    log = directory / "cut.log"
    mother = Mother(_warm, environment, str(log))
    try:
        with watching(flows) as watch:
            yield Cutting(flows, watch, log, mother, Ratchet(watch.state))
    finally:
        mother.kill()


@cache
def _pool_app() -> Flask:
    from apps.pool import create_app

    return create_app()


def _warm() -> None:
    """Do once what each process would do at its start, and let every line go that its children must not share."""
    import relayer.tasks
    import tasks.entry

    configure_mappers()
    tasks.celery.conf.update(broker_url=os.environ["CELERY_BROKER_URL"])
    for name in (REQUESTS, BATCHING, BATCHES, CLAIMS):
        tasks.celery.tasks[name]()
    _pool_app().test_client().get("/v1/requests", headers={HEADER: KEY})
    doorbell_of.cache_clear()
    collaborators, _, _ = relayer.tasks._collaborators()
    for context in (tasks.entry.worker_context(), _pool_app().extensions["service"].context):
        context.sessions.kw["bind"].dispose()
        context.writer.dispose()
    collaborators.sessions.kw["bind"].dispose()
