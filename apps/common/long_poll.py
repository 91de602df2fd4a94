"""Callers that wait until something changes: few at a time, and one look at the database for all of them.

A waiting caller holds one of the web server's threads, so only so many may wait; it holds no connection. One thread of the
process looks, for as long as somebody waits, and tells all who do.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

# Of a web server's 8 threads; the others must stay free for calls that do something.
MAX_WAITERS = 4
LOOK_EVERY_SEC = 0.2

Key = TypeVar("Key")
Value = TypeVar("Value")


class LongPoll(Generic[Key, Value]):
    """`look` is given the keys that callers wait for, and tells what stands under each."""

    def __init__(
        self,
        look: Callable[[frozenset[Key]], Mapping[Key, Value]],
        *,
        most: int = MAX_WAITERS,
        every_sec: float = LOOK_EVERY_SEC,
    ) -> None:
        self._look = look
        self._every_sec = every_sec
        self._places = threading.BoundedSemaphore(most)
        self._changed = threading.Condition()
        self._waited_for: Counter[Key] = Counter()
        self._found: Mapping[Key, Value] = {}
        self._begun = self._found_by = self._faults = (
            0  # looks that began, the one that found this, and those that failed
        )
        self._looking = False

    def wait(self, key: Key, ready: Callable[[Value], bool], seconds: float) -> bool:
        """Wait until `ready` says yes to what a look finds under the key, for so long at most.

        Returns whether the caller should look for itself: False where the time is over, and at once where as many wait as
        may. A look that fails ends the waiting, too: the caller's own then says what is wrong.
        """
        if seconds <= 0 or not self._places.acquire(blocking=False):
            return False
        try:
            with self._changed:
                began, faults = self._begun, self._faults
                self._waited_for[key] += 1
                self._start_looking()

                def due() -> bool:
                    # What a look found that had begun before may be older than what this caller has seen.
                    fresh = self._found_by > began and key in self._found
                    return self._faults != faults or (fresh and ready(self._found[key]))

                try:
                    return self._changed.wait_for(due, seconds)
                finally:
                    self._waited_for[key] -= 1
                    if not self._waited_for[key]:
                        del self._waited_for[key]
        finally:
            self._places.release()

    def _start_looking(self) -> None:
        if not self._looking:
            self._looking = True
            threading.Thread(target=self._look_on, name="long-poll", daemon=True).start()

    def _look_on(self) -> None:
        while True:
            with self._changed:
                keys = frozenset(self._waited_for)
                if not keys:
                    self._looking, self._found = False, {}
                    return
                self._begun += 1
                number = self._begun
            found: Mapping[Key, Value] | None = None
            try:
                found = self._look(keys)
            except Exception as error:  # noqa: BLE001  # whatever it was, those who wait must be told
                log.warning("long_poll_failed", kind=type(error).__name__)
            with self._changed:
                if found is None:
                    self._faults += 1
                else:
                    self._found, self._found_by = found, number
                self._changed.notify_all()
            time.sleep(self._every_sec)
