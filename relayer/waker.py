"""Hints to the worker, few in a burst: the first at once, then one for all that come within a moment of it."""

import threading
import time
from collections.abc import Callable

INTERVAL_SEC = 0.05


class Waker:
    """Called after each commit. Every call is followed by a hint that is published after it; where the process dies before,
    the next beat wakes the worker."""

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._last = 0.0
        self._due = False

    def __call__(self) -> None:
        with self._lock:
            if self._due:
                return
            wait = self._last + INTERVAL_SEC - time.monotonic()
            self._due = wait > 0
            if not self._due:
                self._last = time.monotonic()
        if wait > 0:
            timer = threading.Timer(wait, self._later)
            timer.daemon = True
            timer.start()
        else:
            self._publish()

    def _later(self) -> None:
        with self._lock:
            self._due = False
            self._last = time.monotonic()
        self._publish()
