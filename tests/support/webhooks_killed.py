"""Workers of webhooks as processes of their own, killed at the n-th boundary that they come to."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy.orm import configure_mappers

from tests.support.pool import pool_house
from tests.support.ratchet import ratchet
from tests.support.webhooks import Hooks
from tests.support.workers import Mother

SWEEP, FAN_OUT, DELIVER = "tasks.sweep.wake", "tasks.webhooks.fan_out", "tasks.webhooks.deliver"
# What a killed worker may have moved: not leases, attempts of the engine, nor times.
MOVED = """
    SELECT concat(
        (SELECT md5(string_agg((webhook_id, sequence, status, attempt_count)::text, ',' ORDER BY id)) FROM webhook_deliveries),
        (SELECT md5(string_agg((id, status, cursor, failures)::text, ',' ORDER BY id)) FROM webhooks),
        (SELECT count(*) FROM webhook_attempts), (SELECT last_sequence FROM feed_counter))
"""
UNDER_WAY = """
    SELECT (SELECT count(*) FROM unnumbered_events) + (SELECT count(*) FROM webhook_deliveries WHERE status = 'pending')
        + (SELECT count(*) FROM webhooks WHERE cursor < (SELECT last_sequence FROM feed_counter))
"""


@dataclass
class Killing:
    """Webhooks whose workers are processes of their own, killed at the n-th boundary that they come to."""

    hooks: Hooks
    mother: Mother
    log: Path
    cuts: Counter[str] = field(default_factory=Counter)

    def run(self, task: str, point: str = "") -> bool:
        """Run a task to its end, or to its death; returns whether it was killed."""
        self.hooks.time_passes()
        self.log.write_text("")
        self.mother.start(partial(run_task, task), point)
        (end,) = self.mother.ended().values()
        told = self.log.read_text()
        if end == -signal.SIGKILL:
            self.cuts[told.rsplit("killed at ", 1)[1].strip()] += 1
            return True
        assert end == 0, told
        return False

    def settle(self) -> None:
        """Kill each worker at each of its boundaries, again and again, until nothing is under way."""
        for _ in range(60):
            if self.hooks.ask(UNDER_WAY) == 0:
                return
            for task in (SWEEP, FAN_OUT, DELIVER):
                ratchet(self._moved, partial(self._strike, task))
        raise AssertionError("still under way")

    def _strike(self, task: str, number: int) -> bool:
        return self.run(task, f"*:{number}")

    def _moved(self) -> object:
        return self.hooks.ask(MOVED)


def run_task(name: str) -> None:
    """One message of a task, as a worker takes it."""
    import tasks.entry

    tasks.celery.tasks[name]()


def warm() -> None:
    """Do once what each process would do at its start, and let every line go that its children must not share."""
    import tasks.entry
    from apps.common.doorbell import doorbell_of

    configure_mappers()
    tasks.celery.conf.update(broker_url=os.environ["CELERY_BROKER_URL"])
    for name in (SWEEP, FAN_OUT, DELIVER):
        tasks.celery.tasks[name]()
    doorbell_of.cache_clear()
    context = tasks.entry.worker_context()
    for engine in (context.sessions.kw["bind"], context.writer):
        engine.dispose()


@contextmanager
def killing_workers(database_url: str, directory: Path) -> Iterator[Killing]:
    house = pool_house(database_url)
    environment = {
        "APP_ENV": "test",
        "DATABASE_URL": database_url,
        "INTERNAL_API_KEY": "word",
        "CELERY_BROKER_URL": house.context.settings.broker_url,  # nobody listens
        "WEBHOOK_SECRET_KEY": house.context.settings.webhook_secret_keys[0],
        "WEBHOOK_ALLOW_PRIVATE": "true",
    }
    log = directory / "killed.log"
    mother = Mother(warm, environment, str(log))
    try:
        mother.ended()  # it is warm, and works no more
        yield Killing(Hooks(house, house.client()), mother, log)
    finally:
        mother.kill()
