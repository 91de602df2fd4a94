"""Workers of webhooks as processes of their own, killed at the n-th boundary that they come to."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy.orm import configure_mappers

from tests.support.cutting import die_at_first_new, new_in, run_task
from tests.support.pool import pool_house
from tests.support.ratchet import Ratchet
from tests.support.webhooks import Hooks
from tests.support.workers import Mother

SWEEP, FAN_OUT, DELIVER = "tasks.sweep.wake", "tasks.webhooks.fan_out", "tasks.webhooks.deliver"
# What a worker may move: not leases, attempts of the engine, nor times.
STATE = """
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
    """Webhooks whose workers are processes of their own, each killed once at every boundary that it comes to in each state."""

    hooks: Hooks
    mother: Mother
    log: Path
    cuts: Counter[str] = field(default_factory=Counter)

    def run(self, work: Callable[[], None]) -> str | None:
        """Run it to its end, or to its death; returns what it said where it was killed."""
        self.hooks.time_passes()
        self.log.write_text("")
        self.mother.start(work)
        (end,) = self.mother.ended().values()
        told = self.log.read_text()
        if end == -signal.SIGKILL:
            self.cuts[told.rsplit("killed at ", 1)[1].strip()] += 1
            return told
        assert end == 0, told
        return None

    def settle(self) -> None:
        """Kill each worker at each of its boundaries, again and again, until nothing is under way."""
        ratchet = Ratchet(lambda: str(self.hooks.ask(STATE)))
        for _ in range(60):
            if self.hooks.ask(UNDER_WAY) == 0:
                return
            for task in (SWEEP, FAN_OUT, DELIVER):
                ratchet.work(task, partial(self._strike, task))
        raise AssertionError("still under way")

    def _strike(self, task: str, known: frozenset[str]) -> str | None:
        told = self.run(partial(die_at_first_new, known, partial(run_task, task)))
        return None if told is None else new_in(told)


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
