"""Wake-up hints: a task name and at most one id, sent after the commit. A lost hint costs a second, never an effect."""

from collections.abc import Callable

from apps.common.celery_settings import HintPublisher

Publish = Callable[[str, str | None], None]


def publisher(broker_url: str, queue: str) -> Publish:
    """A function that publishes a hint to a queue and never raises."""
    hints = HintPublisher(broker_url)

    def publish(task: str, row_id: str | None) -> None:
        hints.send(task, row_id, queue=queue)

    return publish
