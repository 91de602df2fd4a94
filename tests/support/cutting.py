"""A house whose tasks run in processes of their own, each killed at the n-th boundary that it comes to: before and after
each commit, each call of another service, each step."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from flask import Flask
from sqlalchemy.orm import configure_mappers

from apps.common.auth import HEADER
from apps.common.doorbell import doorbell_of
from tests.support.flows import DEAD_BROKER, Flows
from tests.support.protocols import KEY
from tests.support.ratchet import BATCHES, BATCHING, CLAIMS, REQUESTS, WALK, Watch, ratchet, watching
from tests.support.relayer import OPERATOR_KEY
from tests.support.workers import Mother, worker_environment

NAME = "cut"  # what the killed processes call themselves at the database


@dataclass
class Cutting:
    flows: Flows
    watch: Watch
    log: Path
    mother: Mother
    cuts: Counter[str] = field(default_factory=Counter)

    def run(self, work: Callable[[], None], point: str = "", *, times: int = 1) -> str | None:
        """Run it to its end, or to its death, so often side by side; returns where it was killed."""
        self._bury()
        self.watch.time_passes()
        self.log.write_text("")
        for _ in range(times):
            self.mother.start(work, point)
        ends = set(self.mother.ended().values())
        told = self.log.read_text()
        if ends == {-signal.SIGKILL}:
            where = told.rsplit("killed at ", 1)[1].strip()
            self.cuts[where] += 1
            return where
        assert ends == {0}, told
        return None

    def cut(self, work: Callable[[], None]) -> int:
        """Run it again and again, each time killed at the next boundary, until it comes to its end."""
        return ratchet(self.watch.moved, lambda number: self.run(work, f"*:{number}") is not None)

    def settle(self) -> None:
        """Cut every task that is due; once nothing is under way any more, a walk that only closes blocks is run as it is."""

        def run(task: str) -> None:
            work = partial(run_task, task)
            if task == WALK and not self.flows._under_way():
                self.run(work)
            else:
                self.cut(work)

        self.watch.settle(run)

    def _bury(self) -> None:
        """The dead are gone from the databases, and so are their locks."""
        query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
        while self.watch.ask(query, NAME):
            time.sleep(0.002)


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
            yield Cutting(flows, watch, log, mother)
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
