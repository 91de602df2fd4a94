"""What one node takes at once and how often, found out by asking: sizes of batches, and rests that it asked for."""

import time

MAX_BATCH = 100
# A size above the one that a node takes is tried again after this time, and later each time it is refused.
PROBE_SEC = 60.0
PROBE_SLOW_SEC = 5.0
PROBE_MAX_SEC = 3_600.0
RATE_REST_SEC = 0.25
RATE_REST_MAX_SEC = 60.0


class Limits:
    """What one node was found to take. Threads share it: a lost update costs one refusal more."""

    def __init__(self) -> None:
        self.batch = MAX_BATCH
        self.refused_batch: int | None = None  # the smallest size that it refused, while that is believed
        self.rests_until = 0.0
        self._rest = RATE_REST_SEC
        self._probe_at = 0.0
        self._probe_wait = PROBE_SEC

    def size(self) -> int:
        """How many calls go into the next request: what it took, or more where that is worth another try."""
        if self.batch < MAX_BATCH and time.monotonic() >= self._probe_at:
            return min(MAX_BATCH, self.batch * 2)
        return self.batch

    def took(self, size: int, refused: int | None) -> None:
        """It answered so many at once, after it had refused `refused` just before."""
        self._rest = RATE_REST_SEC
        if refused is not None:
            again = self.refused_batch is not None
            self._probe_wait = min(PROBE_MAX_SEC, self._probe_wait * 2) if again else PROBE_SEC
            self.batch, self.refused_batch = size, refused
            self._probe_at = time.monotonic() + self._probe_wait
        elif size > self.batch:
            self.batch = size
            if self.refused_batch is not None and size >= self.refused_batch:
                self.refused_batch = None
            self._probe_at = time.monotonic() + self._probe_wait

    def too_slow(self, size: int) -> None:
        """It did not answer so many in time; that may be for another reason, so more are tried again soon."""
        if size > 1:
            self.batch = max(1, size // 2)
            self._probe_at = time.monotonic() + PROBE_SLOW_SEC

    def rate_limited(self, after: float | None) -> float:
        """Note that it wants time, and return how much: what it said, or ever more where it said nothing."""
        if after is None:
            after, self._rest = self._rest, min(RATE_REST_MAX_SEC, self._rest * 2)
        self.rests_until = time.monotonic() + after
        return after
