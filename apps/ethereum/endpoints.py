"""All configured nodes, in order of preference: which is asked, which rests, and what is said when none can answer.

All reads that must fit together go to one endpoint. Mixed from two backends, one of which lags, they would show a receipt
in one read and not in the next, though it never left the chain.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from apps.common.errors import NotFound, ServiceError, Unavailable
from apps.ethereum.jsonrpc import Endpoint, RateLimited, RpcError, Unanswered
from apps.ethereum.node_words import Trouble

log = structlog.get_logger(__name__)

T = TypeVar("T")
REST_SEC = 0.25
REST_MAX_SEC = 30.0
OUT_AFTER_FAILURES = 3


class ChainUnavailable(Unavailable):
    """No Ethereum node answered in time."""

    code = "chain_unavailable"


class NodeRateLimited(ChainUnavailable):
    """Every Ethereum node asks for time; Retry-After says how much."""

    code = "node_rate_limited"


class NodeLacks(ChainUnavailable):
    """No Ethereum node set has what this needs: a method, a block tag, a wider limit, or state that old; the detail names
    it."""

    code = "node_lacks"


class Behind(Unanswered):
    """The node answers as of an older block, or of another one, than was seen before. Callers may be shown the text."""


class Absent(Unanswered):
    """The node has nothing under this name, and answers well otherwise. Callers may be shown the text."""


class Endpoints:
    """The nodes of one setting. One that did not answer rests for a while: it is asked after all others, so that its
    timeout delays no call. When all of them rest, all are asked.
    """

    def __init__(
        self, urls: Sequence[str], timeout: float = 5.0, *, patience: float = 1.0, budget: float = 10.0
    ) -> None:
        self.all = tuple(
            Endpoint(number, url, timeout, patience=patience, budget=budget) for number, url in enumerate(urls, start=1)
        )
        self._failures = dict.fromkeys(self.all, 0)
        self._rests_until = dict.fromkeys(self.all, 0.0)

    def first(self, look: Callable[[Endpoint], T]) -> T:
        """Run `look`, a whole set of reads, on the first endpoint that carries it through.

        Raises `ChainUnavailable`: `NodeRateLimited` where one only asks for time, `NodeLacks` where one answers and
        names what it lacks. Raises `NotFound` where those that answer have nothing under the name asked for.
        """
        said: list[tuple[Endpoint, Exception]] = []
        for endpoint in self.in_order():
            try:
                found = look(endpoint)
            except Absent as error:
                said.append((endpoint, error))
                continue
            except (Unanswered, RpcError) as error:
                self.failed(endpoint)
                said.append((endpoint, error))
                kind, text = type(error).__name__, str(error)[:200]
                log.warning("rpc_endpoint_failed", endpoint=endpoint.number, kind=kind, text=text)
                continue
            self.answered(endpoint)
            return found
        raise sum_up(said)

    def in_order(self) -> tuple[Endpoint, ...]:
        """All of them, those that are resting last."""
        awake = self.awake()
        return (*awake, *(endpoint for endpoint in self.all if endpoint not in awake))

    def awake(self) -> tuple[Endpoint, ...]:
        """Those that are not resting; all where none is left."""
        now = time.monotonic()
        rested = (one for one in self.all if max(self._rests_until[one], one.limits.rests_until) <= now)
        return tuple(rested) or self.all

    def out(self, endpoint: Endpoint) -> bool:
        """Whether it has been silent so often that no agreement of nodes waits for it."""
        return self._failures[endpoint] >= OUT_AFTER_FAILURES

    def failed(self, endpoint: Endpoint) -> None:
        self._failures[endpoint] += 1
        self._rests_until[endpoint] = time.monotonic() + min(REST_MAX_SEC, REST_SEC * 2 ** self._failures[endpoint])

    def answered(self, endpoint: Endpoint) -> None:
        self._failures[endpoint] = 0
        self._rests_until[endpoint] = 0.0


def sum_up(said: Sequence[tuple[Endpoint, Exception]]) -> ServiceError:
    """The error to raise where no endpoint carried it through. A node's own text may hold anything, a key among them, so
    only its class goes out."""
    absent = [error for _, error in said if isinstance(error, Absent)]
    if absent:
        return NotFound(str(absent[0]))
    waits = [error.after for _, error in said if isinstance(error, RateLimited)]
    if waits:
        return NodeRateLimited(retry_after=max(1, math.ceil(min(waits))))
    lacking = [
        f"endpoint {endpoint.number}: {error.trouble.value}"
        for endpoint, error in said
        if isinstance(error, RpcError) and error.trouble not in {Trouble.OTHER, Trouble.BEHIND}
    ]
    if lacking:
        return NodeLacks(f"No Ethereum node set can answer this ({'; '.join(lacking)}).", retry_after=5)
    behind = [error for _, error in said if isinstance(error, Behind)]
    if behind:
        return ChainUnavailable(str(behind[0]))
    refused = [endpoint.number for endpoint, error in said if isinstance(error, RpcError)]
    if refused:
        return ChainUnavailable(f"Endpoint {refused[0]} cannot answer this; it may be behind the others.")
    return ChainUnavailable()
