"""The one error tree, and its one translation to RFC 9457 ``application/problem+json``.

A class's docstring is its default detail; ``code`` is stable and listed in ``docs/errors.md``.
"""

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

import structlog
from flask import Flask, Response, g, has_app_context
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from werkzeug.exceptions import HTTPException

from apps.common.database import is_transient

log = structlog.get_logger(__name__)

FieldErrors = Mapping[str, list[str]]

MAX_FIELDS = 100
MAX_NAME = 200


class ServiceError(Exception):
    """Something went wrong inside the service; the request id finds it in the log."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: FieldErrors | None = None,
        pool_request_id: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.detail = detail or " ".join((type(self).__doc__ or "").split())
        self.errors = dict(errors) if errors else None
        self.pool_request_id = pool_request_id
        self.retry_after = retry_after
        super().__init__(self.detail)

    @property
    def title(self) -> str:
        return self.code.replace("_", " ").capitalize()


class BadRequest(ServiceError):
    """The request is no HTTP that this service understands."""

    status = 400
    code = "bad_request"


class InvalidJson(ServiceError):
    """The body is not a JSON object; send one with Content-Type application/json."""

    status = 400
    code = "invalid_json"


class Unauthorized(ServiceError):
    """The X-Internal-Key header is missing or wrong."""

    status = 401
    code = "unauthorized"


class Forbidden(ServiceError):
    """This caller may not do this."""

    status = 403
    code = "forbidden"


class NotFound(ServiceError):
    """There is nothing under this address or id."""

    status = 404
    code = "not_found"


class MethodNotAllowed(ServiceError):
    """This address does not take this method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(ServiceError):
    """The request did not come whole in time; send it again, at once and as a whole."""

    status = 408
    code = "request_timeout"


class Conflict(ServiceError):
    """The present state does not allow it."""

    status = 409
    code = "conflict"


class InProgress(Conflict):
    """A request with the same message_id is still being worked on; ask again in a moment."""

    code = "in_progress"


class LengthRequired(ServiceError):
    """Say with Content-Length how long the body is; no transfer encoding is taken."""

    status = 411
    code = "length_required"


class TooLarge(ServiceError):
    """The body is too large; split the batch."""

    status = 413
    code = "too_large"


class UnsupportedMediaType(ServiceError):
    """Send the body as application/json."""

    status = 415
    code = "unsupported_media_type"


class InvalidInput(ServiceError):
    """The input is not valid; `errors` names each field and what it takes."""

    status = 422
    code = "invalid_input"


class MessageIdReused(ServiceError):
    """This message_id was used before with another body; `errors` names the fields that differ. Nothing was applied."""

    status = 422
    code = "message_id_reused"


class TooManyRequests(ServiceError):
    """Too many requests; slow down."""

    status = 429
    code = "too_many_requests"


class HeadersTooLarge(ServiceError):
    """The address and headers of the request are too long."""

    status = 431
    code = "headers_too_large"


class Unavailable(ServiceError):
    """The service cannot answer right now; try again shortly."""

    status = 503
    code = "unavailable"

    def __init__(self, detail: str | None = None, *, retry_after: int | None = 1, **kwargs: Any) -> None:
        super().__init__(detail, retry_after=retry_after, **kwargs)


class DatabaseUnavailable(Unavailable):
    """The database cannot answer right now; nothing was applied unless a later read shows it."""

    code = "database_unavailable"


class AppendOnlyUnproven(Unavailable):
    """The service has not proved yet that its database refuses changes to its log; nothing is written before that."""

    code = "append_only_unproven"


class NotConfigured(Unavailable):
    """A setting that this request needs holds a placeholder or is missing; the detail names it."""

    code = "not_configured"


def error_catalogue() -> list[type[ServiceError]]:
    """Every error class loaded, by status and code: the source of ``docs/errors.md``."""
    found: dict[str, type[ServiceError]] = {}
    queue: list[type[ServiceError]] = [ServiceError]
    while queue:
        cls = queue.pop()
        found.setdefault(cls.code, cls)
        queue.extend(cls.__subclasses__())
    return sorted(found.values(), key=lambda cls: (cls.status, cls.code))


def problem(error: ServiceError) -> dict[str, object]:
    """The problem document of an error, without headers."""
    body: dict[str, object] = {
        "type": f"urn:staking:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        # The web server refuses what is no request before any service has given it an id.
        "request_id": g.get("request_id", "") if has_app_context() else "",
    }
    if error.errors:
        body["errors"] = _shortened(error.errors)
    if error.pool_request_id:
        body["pool_request_id"] = error.pool_request_id
    return body


def problem_response(error: ServiceError) -> Response:
    response = Response(json.dumps(problem(error)), error.status, content_type="application/problem+json")
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'ApiKey header="X-Internal-Key"'
    return response


def register_error_handlers(app: Flask) -> None:
    """Translate every exception that leaves a view; texts of other programs, SQL and stack traces stay in the log."""

    @app.errorhandler(ServiceError)
    def handle_service_error(error: ServiceError) -> Response:
        if error.status >= 500:
            log.warning("service_error", code=error.code, detail=error.detail)
        return problem_response(error)

    @app.errorhandler(HTTPException)
    def handle_http_exception(error: HTTPException) -> Response:
        response = problem_response(_from_http(error))
        response.allow.update(getattr(error, "valid_methods", None) or ())  # of a 405
        return response

    @app.errorhandler(DBAPIError)
    @app.errorhandler(NoFreeConnection)
    def handle_database_error(error: DBAPIError | NoFreeConnection) -> Response:
        found = {"kind": type(error).__name__, "sqlstate": getattr(getattr(error, "orig", None), "pgcode", None)}
        if is_transient(error):  # one line a call: a database that is away would else fill the log with traces
            log.warning("database_unavailable", **found)
            return problem_response(DatabaseUnavailable())
        log.error("database_error", **found, exc_info=error)
        return problem_response(ServiceError())

    @app.errorhandler(Exception)
    def handle_stranger(error: Exception) -> Response:
        log.error("unhandled_error", kind=type(error).__name__, exc_info=error)
        return problem_response(ServiceError())


_BY_STATUS: dict[int, type[ServiceError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    413: TooLarge,
    415: UnsupportedMediaType,
    429: TooManyRequests,
    503: Unavailable,
}


def _from_http(error: HTTPException) -> ServiceError:
    data = getattr(error, "data", None) or {}
    if error.code == 422:
        return InvalidInput(errors=_flatten(data.get("messages") or data.get("errors") or {}))
    code = error.code or 500
    # Every other HTTP error below 500, such as a range that a file does not have, is the caller's.
    return _BY_STATUS.get(code, BadRequest if 400 <= code < 500 else ServiceError)()


def _shortened(errors: FieldErrors) -> dict[str, list[str]]:
    """The first `MAX_FIELDS` faults, their names cut to `MAX_NAME`: a caller may send ten thousand, with names of any
    length."""
    return {name[:MAX_NAME]: texts[:MAX_FIELDS] for name, texts in islice(errors.items(), MAX_FIELDS)}


def _flatten(messages: Any, prefix: str = "") -> dict[str, list[str]]:
    """Turn webargs' nested messages into ``{"movements.3.amount_wei": ["…"]}``; the location itself is not a field."""
    flat: dict[str, list[str]] = {}
    if isinstance(messages, Mapping):
        for key, value in messages.items():
            name = (
                prefix if not prefix and key in {"json", "query", "headers", "path"} else f"{prefix}.{key}".strip(".")
            )
            flat.update(_flatten(value, name))
    else:
        texts = messages if isinstance(messages, list) else [messages]
        flat[prefix or "body"] = [str(text) for text in texts]
    return flat
