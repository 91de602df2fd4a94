"""One hint under way at a time: a hint that is on its way to a worker already is not sent a second time.

A burst of ten thousand rows so costs a few messages. The broker holds a mark for each hint under way. Whoever publishes a
hint first sets the mark, and sends nothing where it stands already; the worker that takes the hint takes the mark away
before it looks at any row. So a hint that was left out is one whose row was committed before that look.
"""

from functools import cache

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# A mark outlives the message that was lost with its worker by so long at most; then the hint is sent again.
MARK_SEC = 5
TIMEOUT_SEC = 1.0


class Doorbell:
    """The marks of the hints under way in one broker. Every method raises `redis.RedisError` where it does not answer."""

    def __init__(self, broker_url: str) -> None:
        self._client = redis.Redis.from_url(
            broker_url,
            socket_timeout=TIMEOUT_SEC,
            socket_connect_timeout=TIMEOUT_SEC,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 1),  # the first use of a connection that a restarted broker has closed
        )

    def ring(self, task: str, row_id: str | None) -> bool:
        """Mark the hint as under way; False where it is already."""
        return bool(self._client.set(_mark(task, row_id), b"1", nx=True, ex=MARK_SEC))

    def answer(self, task: str, row_id: str | None, rest_ms: int = 0) -> None:
        """Take the mark away: from now on the hint may be sent again; with `rest_ms`, only after so long."""
        if rest_ms:
            self._client.pexpire(_mark(task, row_id), rest_ms)
        else:
            self._client.delete(_mark(task, row_id))


@cache
def doorbell_of(broker_url: str) -> Doorbell:
    """The doorbell of this process; made at first use, so that no socket is shared with a worker that forked it."""
    return Doorbell(broker_url)


def _mark(task: str, row_id: str | None) -> str:
    return f"hint:{task}:{row_id or ''}"
