"""What a worker's log lines carry, through a real broker: the task, the row, and the HTTP request that caused it all."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from kombu.exceptions import OperationalError

from apps.clients.base import CallRefused
from apps.clients.ledger import LedgerClient
from apps.common.celery_settings import HintPublisher, broker_answers, delivery_settings
from apps.common.hint_task import HintTask
from tests.support.ledger import KEY, POOL, make_ledger
from tests.support.protocols import serving
from tests.support.web import broker

NAMES = ("task", "task_id", "row_id", "request_id")
Bound = dict[str, Any]


@dataclass(frozen=True)
class Worker:
    """A worker with one task, ``logs.look``, which does `work` and remembers what was bound to log lines."""

    broker_url: str
    work: list[Callable[[], None]] = field(default_factory=list)
    seen: "queue.Queue[Bound]" = field(default_factory=queue.Queue)

    def hint(self, row_id: str | None = None) -> None:
        HintPublisher(self.broker_url).send("logs.look", row_id, queue="logs")

    def next_task(self) -> tuple[Bound, Bound]:
        """What was bound in the next task that ends, and what after it."""
        return self.seen.get(timeout=60), self.seen.get(timeout=60)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    celery: Celery[Any] = Celery("logs", task_cls=HintTask, set_as_current=False)
    with broker() as broker_url:
        deadline = time.monotonic() + 60
        while not answers(broker_url):
            assert time.monotonic() < deadline, "the broker did not answer within 60 s"
        celery.conf.update(delivery_settings(broker_url), task_default_queue="logs")
        made = Worker(broker_url)

        @celery.task(name="logs.look", shared=False)
        def look(row_id: str | None = None) -> None:
            for work in made.work:
                work()
            made.seen.put(bound())

        def ended(**_: Any) -> None:
            made.seen.put(bound())

        signals.task_postrun.connect(ended)
        with start_worker(celery, pool="solo", perform_ping_check=False, loglevel="ERROR"):
            yield made
        signals.task_postrun.disconnect(ended)


def test_task__hinted_at_in_a_request__carries_its_id_to_the_next_service(
    worker: Worker, make_database: Callable[[str], str]
) -> None:
    ledger = make_ledger(make_database("ledger"))
    with serving(ledger.app) as ledger_url:

        def withdraw() -> None:
            with pytest.raises(CallRefused, match="insufficient_balance"):
                LedgerClient(ledger_url, KEY).post_movement("logs:1", "withdrawal", POOL, "alice", 1)

        worker.work[:] = [withdraw]
        with structlog.contextvars.bound_contextvars(request_id="the-request-of-alice"):
            worker.hint("row:1")
        inside, outside = worker.next_task()
    worker.work.clear()
    assert inside.pop("task_id")
    assert inside == {"task": "logs.look", "row_id": "row:1", "request_id": "the-request-of-alice"}
    assert outside == {}
    assert ledger.sql("SELECT request_id FROM refusals") == [("the-request-of-alice",)]


def test_task__hinted_at_outside_a_request__has_a_request_id_of_its_own(worker: Worker) -> None:
    structlog.contextvars.clear_contextvars()  # of requests that this process answered in other tests
    worker.hint("not an id\n")
    worker.hint()
    (first, _), (second, _) = worker.next_task(), worker.next_task()
    assert "row_id" not in first | second
    assert first["request_id"] != second["request_id"]
    assert len(first["request_id"]) == len(second["request_id"]) == 36


def bound() -> Bound:
    return {name: value for name, value in structlog.contextvars.get_contextvars().items() if name in NAMES}


def answers(broker_url: str) -> bool:
    try:
        return broker_answers(broker_url)
    except OperationalError:
        return False
