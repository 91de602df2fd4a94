"""The one HTTP client: a timeout on every call, typed outcomes, and no retry that the caller did not ask for.

Outcomes are three. A body: it happened, or had happened before. `CallRefused`: the callee says no, and will say no
again.
`CallFailed`: unknown or transient; the same call with the same message_id may be repeated, never under a new one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import certifi
import marshmallow as ma
import structlog
import urllib3
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as NotInTime

from apps.common.auth import HEADER
from apps.common.crashpoint import crashpoint
from apps.common.errors import Unavailable
from apps.common.shapes import load

log = structlog.get_logger(__name__)

# A JSON object before it is read as a shape.
Json = dict[str, Any]
Shape = TypeVar("Shape")
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Page(Protocol[Item_co]):
    """A page of a list; `next` is the cursor of the next one, None on the last."""

    @property
    def items(self) -> Sequence[Item_co]: ...

    @property
    def next(self) -> str | None: ...


def segment(text: str) -> str:
    """An id as one segment of a path, whatever it holds. Nothing makes one of ``.`` and ``..``: no id may be that."""
    return quote(text, safe="")


class CallFailed(Unavailable):
    """Another service did not answer; whether it acted is unknown, so the same call is repeated with the same
    message_id."""

    code = "upstream_unavailable"


class CallRefused(Exception):
    """Another service refused the call with a stable code."""

    def __init__(
        self, service: str, status: int, code: str, detail: str, errors: Mapping[str, Any] | None = None
    ) -> None:
        self.service = service
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = dict(errors or {})
        super().__init__(f"{service} answered {status} {code}: {detail}")


# More threads than any service of ours has: each finds its kept connection.
KEPT_CONNECTIONS = 16


class ServiceClient:
    """Calls one service. Thread-safe; its connections are kept for the next call.

    It stands on urllib3 itself, which takes no proxy from the environment and follows no redirect here: between services
    of one house both would be wrong, and what `requests` adds to it costs several times the call.
    """

    service = "service"

    def __init__(self, base_url: str, api_key: str, timeout: float = 10.0) -> None:
        address = urlsplit(base_url.rstrip("/"))
        self._path = address.path
        self._timeout = timeout
        secure = {"ca_certs": certifi.where()} if address.scheme == "https" else {}
        self._connections = urllib3.connection_from_url(
            f"{address.scheme}://{address.netloc}", maxsize=KEPT_CONNECTIONS, retries=False, **secure
        )
        self._headers = {HEADER: api_key} if api_key else {}

    def read(self, shape: type[Shape], path: str, **query: Any) -> Shape:
        """What a GET answers; raises `CallFailed` where it has another shape."""
        return self._shaped(shape, path, self.get(path, **query))

    def write(self, shape: type[Shape], path: str, body: Mapping[str, Any], *, timeout: float | None = None) -> Shape:
        """What a POST answers; raises `CallFailed` where it has another shape."""
        return self._shaped(shape, path, self.post(path, body, timeout=timeout))

    def find(self, shape: type[Shape], path: str, **query: Any) -> Shape | None:
        """`read`, with None for 404."""
        try:
            return self.read(shape, path, **query)
        except CallRefused as refusal:
            if refusal.status == 404:
                return None
            raise

    def get(self, path: str, **query: Any) -> Json:
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(given, doseq=True)}" if given else path)

    def post(self, path: str, body: Mapping[str, Any], *, timeout: float | None = None) -> Json:
        """`timeout` is for what looks at a whole history; anything else keeps the client's own."""
        return self._call("POST", path, body=json.dumps(body, allow_nan=False).encode(), timeout=timeout)

    def _shaped(self, shape: type[Shape], path: str, body: Json) -> Shape:
        try:
            return load(shape, body)
        except ma.ValidationError as error:
            log.error("call_answered_with_another_shape", callee=self.service, path=path, fields=error.messages)
            raise CallFailed(f"{self.service} answered with another shape.") from error

    def _call(self, method: str, path: str, *, body: bytes | None = None, timeout: float | None = None) -> Json:
        headers = dict(self._headers)
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        if request_id:
            headers["X-Request-Id"] = request_id
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            if method != "GET":
                crashpoint("call.sending")
            response = self._send(method, path, headers, body, timeout or self._timeout)
            if method != "GET":
                crashpoint("call.answered")
            answer = json.loads(response.data)
        except (HTTPError, ValueError) as error:
            log.warning("call_failed", callee=self.service, path=path.partition("?")[0], kind=type(error).__name__)
            raise CallFailed(f"{self.service} did not answer.") from error
        if response.status < 300 and isinstance(answer, dict):
            return answer
        said = answer if isinstance(answer, dict) else {}
        code, detail = str(said.get("code", "unknown")), str(said.get("detail", ""))
        if response.status >= 500 or response.status == 429 or code == "in_progress":
            raise CallFailed(f"{self.service} answered {response.status} {code}: {detail}")
        raise CallRefused(self.service, response.status, code, detail, said.get("errors"))

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> urllib3.BaseHTTPResponse:
        """One request. A kept connection that the callee closed meanwhile breaks at once: it is sent again on a new
        one.

        Harmless whatever the first one did, as every effect carries its message_id; a timeout is never repeated here.
        """

        def once() -> urllib3.BaseHTTPResponse:
            return self._connections.urlopen(
                method, self._path + path, body, headers, retries=False, redirect=False, timeout=timeout
            )

        try:
            return once()
        except NotInTime:
            raise
        except HTTPError:
            return once()


def pages(read: Callable[[str | None], Page[Item]]) -> Iterator[Sequence[Item]]:
    """All pages of a list, each as its items; `read` gets a cursor, None for the first page."""
    after = None
    while True:
        page = read(after)
        yield page.items
        after = page.next
        if after is None:
            return
