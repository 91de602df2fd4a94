"""Wake-up hints: a task name and at most one id, sent after the commit. A lost hint costs a second, never an effect."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from apps.common.celery_settings import HintPublisher

Publish = Callable[[str, str | None], None]


def publisher(broker_url: str, queue: str, apart: Mapping[str, str] = MappingProxyType({})) -> Publish:
    """A function that publishes a hint to a queue and never raises. `apart`: tasks with a queue of their own, by the
    beginning of their names."""
    hints = HintPublisher(broker_url)

    def publish(task: str, row_id: str | None) -> None:
        own = (other for beginning, other in apart.items() if task.startswith(beginning))
        hints.send(task, row_id, queue=next(own, queue))

    return publish
