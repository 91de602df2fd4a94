"""What every web service is: a Flask app with its API, errors, auth, status, metrics, request ids and documentation."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from flask import Flask, Response, g, jsonify, request, send_from_directory
from flask_smorest import Api, Blueprint

from apps.common.auth import require_internal_key
from apps.common.database import Sessions, database_answers, schema_revision
from apps.common.errors import InvalidInput, InvalidJson, NotFound, ServiceError, register_error_handlers
from apps.common.logging import configure_logging
from apps.common.metrics import register_metrics
from apps.common.wei import WeiField
from apps.common.wire import new_id

MAX_BODY_BYTES = 8 * 1024 * 1024
SWAGGER_UI = Path(__file__).parent / "static" / "swagger-ui"

log = structlog.get_logger(__name__)

Check = Callable[[], Any]


def build_app(
    service: str,
    *,
    blueprints: Sequence[Blueprint],
    sessions: Sessions,
    accepted_keys: Sequence[str],
    checks: Mapping[str, Check] | None = None,
    status_path: str | None = None,
    allow: Callable[[], bool] | None = None,
) -> Flask:
    """Build a service's app. `checks` maps a name to a callable that raises, or returns False, when the part is down.

    The database and its schema revision are always checked. `allow` is passed to `require_internal_key`.
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
    app.json.sort_keys = False  # type: ignore[attr-defined]  # shapes are documented in reading order
    app.extensions["sessions"] = sessions
    _register_request_ids(app)
    app.extensions["metrics"] = register_metrics(app, service)
    require_internal_key(app, accepted_keys, allow=allow)
    _refuse_nul(app)
    _refuse_other_bodies(app)
    _register_status(app, service, sessions, dict(checks or {}), status_path or f"/status/{service}")
    app.add_url_rule("/docs/assets/<path:filename>", "docs_assets", _docs_asset)
    api = Api(app)
    api.ma_plugin.converter.add_attribute_function(_document_wei)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    register_error_handlers(app)
    return app


def _register_request_ids(app: Flask) -> None:
    @app.before_request
    def take_request_id() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", given) else new_id()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    def return_request_id(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _refuse_nul(app: Flask) -> None:
    """No id, name or cursor holds a NUL character, and no statement can: said here once, for paths and queries."""

    @app.before_request
    def check_address() -> None:
        if "\0" in request.path:
            raise NotFound
        names = [name for name, value in request.args.items(multi=True) if "\0" in name + value]
        if names:
            raise InvalidInput(errors={name.replace("\0", ""): ["Must not hold a NUL character."] for name in names})


def _refuse_other_bodies(app: Flask) -> None:
    """A POST's body must be a JSON object; said here once, before any schema looks at it."""

    @app.before_request
    def check_body() -> None:
        if request.method != "POST":
            return
        if not request.get_data(cache=True):
            return
        body = request.get_json(force=True, silent=True)
        if not isinstance(body, dict):
            raise InvalidJson
        if not request.is_json:
            raise InvalidJson("The body is JSON; say so with Content-Type: application/json.")


def _register_status(app: Flask, service: str, sessions: Sessions, checks: dict[str, Check], path: str) -> None:
    def run(check: Check) -> dict[str, Any]:
        try:
            found = check()
        except Exception as error:  # noqa: BLE001  # a status page reports whatever is wrong
            log.warning("status_check_failed", kind=type(error).__name__)
            said = (
                {"detail": error.detail} if isinstance(error, ServiceError) else {}
            )  # made to be told; others are not
            return {"ok": False, "error": type(error).__name__, **said}
        if isinstance(found, bool) or found is None:
            return {"ok": bool(found)}
        return {"ok": True, "value": found}

    @app.get(path)
    def status() -> tuple[Response, int]:
        results = {"database": run(lambda: database_answers(sessions))}
        results["schema_revision"] = run(lambda: schema_revision(sessions))
        results.update({name: run(check) for name, check in checks.items()})
        ok = all(result["ok"] for result in results.values())
        body = {"service": service, "status": "ok" if ok else "unavailable", "checks": results}
        return jsonify(body), 200 if ok else 503


def _docs_asset(filename: str) -> Response:
    return send_from_directory(SWAGGER_UI, filename)


def _document_wei(_converter: Any, field: Any, **_kwargs: Any) -> dict[str, Any]:
    if isinstance(field, WeiField):
        return {"type": "string", "format": "wei", "pattern": "^-?(0|[1-9][0-9]{0,77})$"}
    return {}
