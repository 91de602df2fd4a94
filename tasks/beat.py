"""Beat: publishes the schedules' hints, by the monotonic clock, and only as many as workers take.

Celery's own scheduler lives by the host's wall clock and a file: a clock that steps back stops it for as long, and an
``expires`` on its messages is one host's time read by another's. Here no time is written down anywhere. What bounds the
backlog while no worker runs is the queue's own length: a hint that is not published stays due, and goes out as soon as
there is room.
"""

import time
from typing import Any

import structlog
from amqp.exceptions import ChannelError
from celery.beat import ScheduleEntry, Scheduler

log = structlog.get_logger(__name__)

# Hints that wait in a queue when workers are merely behind are far fewer; a hint behind so many is in no hurry.
MAX_WAITING = 500
TICK_SEC = 1.0


class SteadyScheduler(Scheduler):
    """Every schedule is due at start and then each interval. Two beats at once are harmless, see `apps.flow.schedule`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._due_at: dict[str, float] = {}
        self._troubled = False
        super().__init__(*args, **kwargs)

    def install_default_entries(self, data: Any) -> None:
        """None: Celery's own clean-up of results has nothing to clean."""

    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        """Publish what is due; returns the seconds until something may be due again."""
        try:
            self._publish_due(time.monotonic())
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the broker, beat goes on and so does the clock
            self._note_trouble(error)
        else:
            self._troubled = False
        now = time.monotonic()
        due_in = [self._due_at.get(name, now) - now for name in self.schedule]
        return min(TICK_SEC, max(0.05, min(due_in, default=TICK_SEC)))

    def _publish_due(self, now: float) -> None:
        waiting: dict[str, int] = {}
        for name, entry in list(self.schedule.items()):
            if self._due_at.get(name, now) > now:
                continue
            queue = self._queue_of(entry)
            if queue not in waiting:
                waiting[queue] = self._length(queue)
            if waiting[queue] >= MAX_WAITING:
                self._due_at[name] = now + TICK_SEC
                continue
            self.apply_async(entry, producer=self.producer, advance=False)
            waiting[queue] += 1
            self._due_at[name] = now + _interval_sec(entry)

    def _queue_of(self, entry: ScheduleEntry) -> str:
        return str(self.app.amqp.router.route({}, entry.task or "")["queue"].name)

    def _length(self, queue: str) -> int:
        channel: Any = self.connection.default_channel
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:  # a queue without a message does not exist
            return 0

    def _note_trouble(self, error: Exception) -> None:
        """One line when the broker goes, not one a second; the connection is made anew at the next tick."""
        if not self._troubled:
            log.warning("hints_not_published", kind=type(error).__name__)
        self._troubled = True
        self.close()


def _interval_sec(entry: ScheduleEntry) -> float:
    """Intervals are all that the schedules are made of; a time of day would be the host's."""
    every: Any = entry.schedule
    return float(every.run_every.total_seconds())
