"""JSON-RPC over HTTP to one node, within the limits that its provider sets (`apps.ethereum.limits`).

A batch goes out in parts. A part that the node refuses is asked again in halves. Answers that are missing, or held back
by a rate limit, are asked for again; what has been answered is kept. Everything is bounded: by `timeout` per request,
`budget` for a whole batch, and `patience` for waiting where the node asks for time. The URL may hold a key, so no text of
a transport error leaves this module.
"""

import json
import math
import threading
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from apps.ethereum.limits import RATE_REST_MAX_SEC, RATE_REST_SEC, Limits
from apps.ethereum.node_words import Trouble, trouble

Request = tuple[str, list[Any]]

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
ASKED_AGAIN = 3  # so often for answers that are missing among others
_REFUSED_AS_A_WHOLE = frozenset({400, 413, 414, 422, 431})


class RpcError(Exception):
    """The node answered with an error. `data` is the revert data of a call, where there is any."""

    def __init__(self, code: int, message: str, data: bytes = b"") -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(message)

    @property
    def trouble(self) -> Trouble:
        return trouble(self.code, self.message)


class Unanswered(Exception):
    """No usable answer: whether the node acted is unknown."""


class TooSlow(Unanswered):
    """A batch was not done within its budget; a smaller one may be."""


class RateLimited(Unanswered):
    """The node asks for time. `after`: seconds until it may be asked again."""

    def __init__(self, after: float) -> None:
        self.after = after
        super().__init__(f"rate limited for {after:.1f} s")


class Endpoint:
    """One node. `number` is how it is named in logs and evidence. `calls` and `round_trips` count what it was asked."""

    def __init__(self, number: int, url: str, timeout: float, *, patience: float = 1.0, budget: float = 10.0) -> None:
        self.number = number
        self.limits = Limits()
        self.calls = 0
        self.round_trips = 0
        self._url = url
        self._timeout = timeout
        self._patience = patience
        self._budget = budget
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Endpoint({self.number})"

    def call(self, method: str, params: list[Any]) -> Any:
        """Return the result; raises `RpcError` or `Unanswered`."""
        result = self.batch([(method, params)])[0]
        if isinstance(result, RpcError):
            raise result
        return result

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Results in order; an error answer is an `RpcError` in its place. Raises `Unanswered` for the whole."""
        work = _Work(self, requests, time.monotonic() + self._patience, time.monotonic() + self._budget)
        while work.waiting:
            work.round()
        return [work.found[place] for place in range(len(requests))]

    def post(self, asked: Any, calls: int) -> tuple[int, Any, float | None]:
        """One HTTP request: its status, the JSON in it (None where it holds none), and what Retry-After says."""
        self.calls += calls
        self.round_trips += 1
        give_up = time.monotonic() + self._timeout
        raw = bytearray()
        try:
            with self._session().post(
                self._url, json=asked, timeout=self._timeout, stream=True, allow_redirects=False
            ) as response:
                for piece in response.iter_content(65_536):
                    raw += piece
                    if len(raw) > MAX_RESPONSE_BYTES:
                        raise Unanswered("the answer is too large")
                    if time.monotonic() > give_up:
                        raise TooSlow("the answer takes too long")
                status, after = response.status_code, response.headers.get("Retry-After")
        except requests.Timeout as error:
            raise TooSlow(type(error).__name__) from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise Unanswered(type(error).__name__) from None
        try:
            body = json.loads(bytes(raw))
        except (ValueError, RecursionError):
            body = None
        return status, body, _seconds(after)

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session


class _Work:
    """One batch under way: what is answered, and what still waits."""

    def __init__(self, endpoint: Endpoint, asked: Sequence[Request], patient_until: float, give_up: float) -> None:
        self.endpoint = endpoint
        self.asked = asked
        self.found: dict[int, Any] = {}
        self.waiting = list(range(len(asked)))
        self._patient_until = patient_until
        self._give_up = give_up
        self._size: int | None = None  # smaller than usual, since a part was refused
        self._refused: int | None = None
        self._gaps = 0

    def round(self) -> None:
        """Ask for the next part; raises `Unanswered` where that leads nowhere."""
        self._wait_where_asked_to()
        if time.monotonic() > self._give_up:
            raise TooSlow("the batch takes too long")
        limits = self.endpoint.limits
        part = self.waiting[: self._size or limits.size()]
        bodies = [
            {"jsonrpc": "2.0", "id": place, "method": self.asked[place][0], "params": self.asked[place][1]}
            for place in part
        ]
        try:
            status, body, after = self.endpoint.post(bodies if len(part) > 1 else bodies[0], len(part))
        except TooSlow:
            limits.too_slow(len(part))
            raise
        answers = {} if status >= 500 else _by_place(body, part)  # what a broken gateway passes on is no answer
        limited = status == 429 or (status == 503 and after is not None and not answers)
        limited = limited or (not answers and _is_about(body, Trouble.RATE))
        again = False
        for place, answer in answers.items():
            kind = answer.trouble if isinstance(answer, RpcError) else None
            if kind is Trouble.RATE:
                limited = True
            elif kind in {Trouble.BATCH, Trouble.SIZE} and len(part) > 1:
                again = True
            else:
                self.found[place] = answer
        done = [place for place in part if place in self.found]
        self.waiting = [place for place in self.waiting if place not in self.found]
        if limited:
            limits.rate_limited(after)
        elif again or not done:
            self._smaller(part, status, body)
        elif len(done) < len(part):
            self._gaps += 1
            if self._gaps > ASKED_AGAIN:
                raise Unanswered("answers of the batch are missing")
        else:
            limits.took(self._size if self._refused and self._size else len(part), self._refused)
            self._refused = None

    def _wait_where_asked_to(self) -> None:
        rest = self.endpoint.limits.rests_until - time.monotonic()
        if rest <= 0:
            return
        if time.monotonic() + rest > self._patient_until:
            raise RateLimited(rest)
        time.sleep(rest)

    def _smaller(self, part: Sequence[int], status: int, body: Any) -> None:
        """Half of it next time; where one call alone is not answered, nothing is."""
        if status >= 300 and (status not in _REFUSED_AS_A_WHOLE or len(part) == 1):
            if status >= 500:  # a gateway that is down, or one that cannot carry so much
                self.endpoint.limits.too_slow(len(part))
            raise Unanswered(f"HTTP {status}")
        if len(part) == 1:
            raise Unanswered("not a JSON-RPC answer" if body is None else "neither result nor error")
        self._refused = len(part)
        self._size = len(part) // 2


def _by_place(body: Any, part: Sequence[int]) -> dict[int, Any]:
    """Results and errors by the id they answer; what answers nothing that was asked is left out. The first counts."""
    if len(part) == 1 and isinstance(body, dict):
        # The line itself says what it answers, where the node leaves the id out.
        body = [body if body.get("id") is not None else {**body, "id": part[0]}]
    if not isinstance(body, list):
        return {}
    wanted = set(part)
    found: dict[int, Any] = {}
    for answer in body:
        if not isinstance(answer, dict) or type(answer.get("id")) is not int:
            continue
        place = answer["id"]
        if place in wanted and place not in found and (answer.get("error") is not None or "result" in answer):
            found[place] = read_error(answer["error"]) if answer.get("error") is not None else answer["result"]
    return found


def _is_about(body: Any, kind: Trouble) -> bool:
    """Whether an answer that belongs to no call says this of all of them."""
    said = body[0] if isinstance(body, list) and len(body) == 1 else body
    return isinstance(said, dict) and said.get("error") is not None and read_error(said["error"]).trouble is kind


def read_error(error: Any) -> RpcError:
    """The ``error`` of an answer, whatever shape a client gives it."""
    if not isinstance(error, dict):
        return RpcError(0, str(error))
    data = error.get("data")
    text = str(error.get("message", ""))
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    revert = b""
    if isinstance(data, str) and data.startswith("0x"):
        try:
            revert = bytes.fromhex(data[2:])
        except ValueError:
            revert = b""
    elif isinstance(data, str):
        text = f"{text} {data}"  # some clients put the meaning there
    code = error.get("code")
    return RpcError(code if type(code) is int else 0, text, revert)


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or a time by the sender's clock, which is believed up to a minute."""
    if not retry_after:
        return None
    try:
        asked = float(retry_after)
    except ValueError:
        try:
            asked = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return None if math.isnan(asked) else min(RATE_REST_MAX_SEC, max(RATE_REST_SEC, asked))
