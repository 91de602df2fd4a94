"""Which queue a task is in: money waits behind no server of a caller's, and whoever hints means the queue that beat means."""

import pytest

from apps.common.celery_settings import HintPublisher
from apps.pool.context import pool_publisher
from tasks import celery
from tests.support.pool import pool_settings


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("tasks.requests.advance", "pool"),
        ("tasks.walk.run", "pool"),
        ("tasks.webhooks.fan_out", "webhooks"),
        ("tasks.webhooks.deliver", "webhooks"),
    ],
)
def test_hint__of_a_task__goes_to_the_queue_that_it_is_routed_to(
    monkeypatch: pytest.MonkeyPatch, task: str, queue: str
) -> None:
    sent: list[tuple[str, str]] = []

    def send(_: HintPublisher, task: str, row_id: str | None = None, *, queue: str) -> None:
        sent.append((task, queue))

    monkeypatch.setattr(HintPublisher, "send", send)
    pool_publisher(pool_settings("postgres://staking@/none"))(task, None)
    assert sent == [(task, queue)]
    assert celery.amqp.router.route({}, task)["queue"].name == queue
