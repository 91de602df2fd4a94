"""Wake-up hints: a task name and at most one id, sent after the commit. A lost hint costs a second, never money."""

from apps.common.celery_settings import HintPublisher
from apps.pool.context import Publish


def pool_hints(broker_url: str) -> Publish:
    """Return a function that publishes a hint to the ``pool`` queue and never raises."""
    publisher = HintPublisher(broker_url)

    def publish(task: str, row_id: str | None) -> None:
        publisher.send(task, row_id, queue="pool")

    return publish
