"""What every web service is: a Flask app with its API, errors, auth, status, metrics, request ids and documentation."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from flask import Flask, Response, g, jsonify, request, send_from_directory
from prometheus_client import Gauge

from apps.common import audit_page
from apps.common.api import Api, Blueprint, takes
from apps.common.audit_entries import AuditEntryMixin
from apps.common.audit_log import AuditLog
from apps.common.auth import is_open, require_key
from apps.common.bodies import MAX_BODY_BYTES, read_body
from apps.common.database import Sessions, database_answers, schema_revision
from apps.common.errors import InvalidInput, NotFound, ServiceError, Unavailable, register_error_handlers
from apps.common.keys import KeyRing, KeysFileRefused
from apps.common.logging import configure_logging
from apps.common.metrics import register_metrics
from apps.common.openapi import complete, document_field
from apps.common.security_headers import add_security_headers
from apps.common.settings import SettingsError
from apps.common.wire import new_id, request_id_of

SWAGGER_UI = Path(__file__).parent / "static" / "swagger-ui"
# The status page needs no key, and a check may wait for a node: most threads must stay free for calls.
MAX_LOOKERS = 2

log = structlog.get_logger(__name__)

Check = Callable[[], Any]


def build_app(
    service: str,
    *,
    blueprints: Sequence[Blueprint],
    sessions: Sessions,
    accepted_keys: Sequence[str],
    accepted_name: str = "INTERNAL_API_KEY",
    keys_file: Path | None = None,
    audit_entries: type[AuditEntryMixin] | None = None,
    checks: Mapping[str, Check] | None = None,
    status_path: str | None = None,
    allow: Callable[[], bool] | None = None,
) -> Flask:
    """Build a service's app. `checks` maps a name to a callable that raises, or returns False, when the part is down.

    The database and its schema revision are always checked. `accepted_name` is the setting that `accepted_keys` stand in;
    `keys_file` holds further keys (`apps.common.keys`). Calls of ops are written into the table `audit_entries`. `allow` is
    passed to `require_key`. Raises `SettingsError`, and `NotAppendOnly` where the database accepts changes to that table.
    """
    configure_logging(service)
    app = Flask(service, static_folder=None)
    app.config.update(
        API_TITLE=f"Staking: {service}",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        OPENAPI_SWAGGER_UI_PATH="/docs",
        OPENAPI_SWAGGER_UI_URL="/docs/assets/",
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
    )
    app.url_map.merge_slashes = False  # what is no address is refused, not redirected
    app.json.sort_keys = False  # type: ignore[attr-defined]  # shapes are documented in reading order
    app.extensions["sessions"] = sessions
    _register_request_ids(app)
    add_security_headers(app)
    registry = register_metrics(app, service)
    app.extensions["metrics"] = registry
    try:
        ring = KeyRing(accepted_keys, accepted_name, keys_file)
    except KeysFileRefused as error:
        raise SettingsError(service, [f"API_KEYS_FILE names a file that is refused: {error}"]) from error
    audit_log = None if audit_entries is None else AuditLog(sessions, audit_entries)
    require_key(app, ring, allow=allow, on_ops_refused=None if audit_log is None else audit_log.refused)
    _refuse_odd_addresses(app)
    _take_body(app)
    if audit_log is not None:
        audit_log.watch(app)
        blueprints = [*blueprints, audit_page.blueprint]
    found = dict(checks or {})
    if keys_file is not None:
        found["api_keys_file"] = lambda: ring.refusal() or "taken"
        taken = Gauge(
            "staking_api_keys_file_taken", "1 while the present API_KEYS_FILE is in force.", registry=registry
        )
        taken.set_function(lambda: float(ring.refusal() is None))
    _register_status(app, service, sessions, found, status_path or f"/status/{service}")
    app.add_url_rule("/docs/assets/<path:filename>", "docs_assets", _docs_asset)
    api = Api(app, partial(complete, app))
    api.ma_plugin.converter.add_attribute_function(document_field)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    register_error_handlers(app)
    return app


def _register_request_ids(app: Flask) -> None:
    @app.before_request
    def take_request_id() -> None:
        g.request_id = request_id_of(request.headers.get("X-Request-Id")) or new_id()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    def return_request_id(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        return response


def _refuse_odd_addresses(app: Flask) -> None:
    """Refuse what no endpoint takes: a NUL, which no statement can hold; a query parameter that is given twice or that the
    endpoint does not know, since its caller expects an effect of it."""

    @app.before_request
    def check_address() -> None:
        if "\0" in request.path:
            raise NotFound
        if is_open(request.path) or request.routing_exception is not None:
            return
        known = "query" in takes(app, request)
        faults = {}
        for name, values in request.args.lists():
            if "\0" in name or any("\0" in value for value in values):
                faults[name.replace("\0", "")] = ["Must not hold a NUL character."]
            elif len(values) > 1:
                faults[name] = ["Must be given once."]
            elif not known:
                faults[name] = ["Unknown field."]
        if faults:
            raise InvalidInput(errors=faults)


def _take_body(app: Flask) -> None:
    """Read the body once and keep it in `g.body`, where the parser finds it; refuse a body that the endpoint does not
    take."""

    @app.before_request
    def take_body() -> None:
        if is_open(request.path) or request.routing_exception is not None:
            return
        g.body = read_body(request)
        if g.body and "json" not in takes(app, request):
            raise InvalidInput(errors={name: ["Unknown field."] for name in g.body})


def _register_status(app: Flask, service: str, sessions: Sessions, checks: dict[str, Check], path: str) -> None:
    def run(check: Check) -> dict[str, object]:
        try:
            found = check()
        except Exception as error:  # noqa: BLE001  # a status page reports whatever is wrong
            log.warning("status_check_failed", kind=type(error).__name__)
            # The detail of a `ServiceError` is meant for callers; what another exception says may hold secrets.
            detail = {"detail": error.detail} if isinstance(error, ServiceError) else {}
            return {"ok": False, "error": type(error).__name__, **detail}
        if isinstance(found, bool) or found is None:
            return {"ok": bool(found)}
        return {"ok": True, "value": found}

    lookers = threading.BoundedSemaphore(MAX_LOOKERS)
    last: list[tuple[dict[str, object], int]] = []

    @app.get(path)
    def status() -> tuple[Response, int]:
        """Run the checks; while `MAX_LOOKERS` other requests run them, answer what was found last."""
        if not lookers.acquire(blocking=False):
            if not last:
                raise Unavailable("Others are asking already, and nothing is known yet; ask again.")
            body, code = last[0]
            return jsonify(body), code
        try:
            results = {"database": run(lambda: database_answers(sessions))}
            results["schema_revision"] = run(lambda: schema_revision(sessions))
            results.update({name: run(check) for name, check in checks.items()})
        finally:
            lookers.release()
        ok = all(result["ok"] for result in results.values())
        body = {"service": service, "status": "ok" if ok else "unavailable", "checks": results}
        last[:] = [(body, 200 if ok else 503)]
        return jsonify(body), 200 if ok else 503


def _docs_asset(filename: str) -> Response:
    return send_from_directory(SWAGGER_UI, filename)
