"""JSON-RPC to Ethereum nodes. No retry hides here: web3's own turn a delivered transaction into an error.

All reads of one look at the chain go to one endpoint; mixing two backends makes a receipt vanish that was never gone.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from eth_typing import URI
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from apps.common.ethereum import ChainUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")
Request = tuple[str, list[Any]]
BATCH_SIZE = 100
REST_SEC = 0.25
REST_MAX_SEC = 30.0
OUT_AFTER_FAILURES = 3


class RpcError(Exception):
    """The node answered with an error. `data` is the revert data of a call, where there is any."""

    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(message)


class Unanswered(Exception):
    """No usable answer: whether the node acted is unknown."""


class Endpoint:
    """One node. `number` is how it is named in logs and evidence; its URL may hold a key. `calls` and `round_trips`
    count what it was asked."""

    def __init__(self, number: int, url: str, timeout: float) -> None:
        self.number = number
        self.calls = 0
        self.round_trips = 0
        self._provider = HTTPProvider(URI(url), request_kwargs={"timeout": timeout}, exception_retry_configuration=None)

    def call(self, method: str, params: list[Any]) -> Any:
        """Return the result; raises `RpcError` or `Unanswered`."""
        self._count(1)
        try:
            response = self._provider.make_request(RPCEndpoint(method), params)
        except Exception as error:  # noqa: BLE001  # the texts of transport errors hold URLs
            raise Unanswered(type(error).__name__) from None
        return _result(response)

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Results in order; an error answer is an `RpcError` in its place. Raises `Unanswered` for the whole."""
        results: list[Any] = []
        for start in range(0, len(requests), BATCH_SIZE):
            results.extend(self._batch(requests[start : start + BATCH_SIZE]))
        return results

    def _count(self, calls: int) -> None:
        self.calls += calls
        self.round_trips += 1

    def _batch(self, requests: Sequence[Request]) -> list[Any]:
        self._count(len(requests))
        try:
            named = [(RPCEndpoint(method), params) for method, params in requests]
            responses = self._provider.make_batch_request(named)
        except Exception as error:  # noqa: BLE001
            raise Unanswered(type(error).__name__) from None
        if not isinstance(responses, list) or len(responses) != len(requests):
            raise Unanswered("the batch was not answered as one")
        results = []
        for response in responses:
            try:
                results.append(_result(response))
            except RpcError as error:
                results.append(error)
        return results


class Endpoints:
    """All configured nodes, in order of preference.

    One that did not answer is resting for a while: it is asked after all others, so that it holds nobody up. The last
    one never rests: when no endpoint answers, all are asked.
    """

    def __init__(self, urls: Sequence[str], timeout: float = 5.0) -> None:
        self.all = tuple(Endpoint(number, url, timeout) for number, url in enumerate(urls, start=1))
        self._failures = dict.fromkeys(self.all, 0)
        self._rests_until = dict.fromkeys(self.all, 0.0)

    def first(self, look: Callable[[Endpoint], T]) -> T:
        """Run a whole look at the chain on the first endpoint that carries it through; raises `ChainUnavailable`."""
        awake = self.awake()
        for endpoint in (*awake, *(endpoint for endpoint in self.all if endpoint not in awake)):
            try:
                found = look(endpoint)
            except (Unanswered, RpcError) as error:
                self.failed(endpoint)
                kind, said = type(error).__name__, str(error)[:200]
                log.warning("rpc_endpoint_failed", endpoint=endpoint.number, kind=kind, text=said)
                continue
            self.answered(endpoint)
            return found
        raise ChainUnavailable

    def awake(self) -> tuple[Endpoint, ...]:
        """Those that are not resting; all where none is left."""
        now = time.monotonic()
        return tuple(one for one in self.all if self._rests_until[one] <= now) or self.all

    def out(self, endpoint: Endpoint) -> bool:
        """Whether it has been silent so often that nobody waits for its word."""
        return self._failures[endpoint] >= OUT_AFTER_FAILURES

    def failed(self, endpoint: Endpoint) -> None:
        self._failures[endpoint] += 1
        self._rests_until[endpoint] = time.monotonic() + min(REST_MAX_SEC, REST_SEC * 2 ** self._failures[endpoint])

    def answered(self, endpoint: Endpoint) -> None:
        self._failures[endpoint] = 0
        self._rests_until[endpoint] = 0.0


def _result(response: Any) -> Any:
    if not isinstance(response, dict):
        raise Unanswered("not a JSON-RPC answer")
    error = response.get("error")
    if error is not None:
        if not isinstance(error, dict):
            raise RpcError(0, str(error))
        data = error.get("data")
        text = str(error.get("message", ""))
        if isinstance(data, dict):
            data = data.get("data")
        revert = b""
        if isinstance(data, str) and data.startswith("0x"):
            try:
                revert = bytes.fromhex(data[2:])
            except ValueError:
                revert = b""
        elif isinstance(data, str):
            text = f"{text} {data}"  # some clients put the meaning there
        raise RpcError(int(error.get("code") or 0), text, revert)
    if "result" not in response:
        raise Unanswered("neither result nor error")
    return response["result"]
