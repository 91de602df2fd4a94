"""How often somebody may call: a bucket of tokens for each name, in this process's memory.

A bucket holds a minute's worth and fills steadily. Each process counts on its own: with three web processes of a service a
key may call three times as often. Nothing is asked of a database or broker, so that their failing changes nothing here.
"""

import math
import threading
import time
from dataclasses import dataclass

from flask import Response

WINDOW_SEC = 60
MAX_BUCKETS = 10_000


@dataclass(frozen=True)
class Taken:
    """What is left after a call, and in how many seconds the bucket is full again. `wait_sec` is above 0 where there was
    nothing to take: so long until there is."""

    quota: int
    remaining: int
    full_in_sec: int
    wait_sec: int

    def describe(self, response: Response) -> None:
        """The headers of draft-ietf-httpapi-ratelimit-headers-11."""
        response.headers["RateLimit-Policy"] = f'"key";q={self.quota};w={WINDOW_SEC}'
        response.headers["RateLimit"] = f'"key";r={self.remaining};t={self.full_in_sec}'


class RateLimits:
    """Buckets by name. Thread-safe; those unused for longest are forgotten where there are more than `MAX_BUCKETS`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when that was so

    def take(self, name: str, per_minute: int) -> Taken:
        """Take a token, if there is one."""
        now = time.monotonic()
        speed = per_minute / WINDOW_SEC
        with self._lock:
            tokens, since = self._buckets.pop(name, (float(per_minute), now))
            tokens = min(per_minute, tokens + (now - since) * speed)
            taken = tokens >= 1
            tokens -= taken
            self._buckets[name] = (tokens, now)  # at the end: the first is the one unused for longest
            if len(self._buckets) > MAX_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
        wait = 0 if taken else math.ceil((1 - tokens) / speed)
        return Taken(per_minute, int(tokens), math.ceil((per_minute - tokens) / speed), wait)
