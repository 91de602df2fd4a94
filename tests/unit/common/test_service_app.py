"""What every service does with a request before and after its own code: keys, bodies, errors, ids, secrets in logs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError, ProgrammingError

from apps.common.api import Blueprint
from apps.common.auth import HEADER
from apps.common.database import make_engine, make_sessions
from apps.common.errors import Unavailable
from apps.common.logging import hide_url_secrets, redact
from apps.common.service_app import build_app

SQL = "SELECT secret FROM somewhere"


class Orig(Exception):
    def __init__(self, pgcode: str | None) -> None:
        self.pgcode = pgcode
        super().__init__("password=hush")


def client(**options: Any) -> FlaskClient:
    """An app whose database is nobody, with views that fail in each way."""

    def echo() -> dict[str, bool]:
        return {"ok": True}

    def boom() -> dict[str, bool]:
        raise RuntimeError("password=hush")

    def database(state: str) -> dict[str, bool]:
        raise (ProgrammingError if state == "42601" else OperationalError)(SQL, {}, Orig(state))

    def busy() -> dict[str, bool]:
        raise Unavailable

    sessions = make_sessions(make_engine("postgresql+psycopg2://nobody:hush@127.0.0.1:1/none"))
    documented = Blueprint("documented", "sample")
    documented.route("/v1/documented")(documented.response(204)(boom))
    app = build_app("sample", blueprints=[documented], sessions=sessions, accepted_keys=("one", "two"), **options)
    app.add_url_rule("/v1/echo", "echo", echo, methods=["POST"])
    app.add_url_rule("/v1/boom", "boom", boom)
    app.add_url_rule("/v1/database/<state>", "database", database)
    app.add_url_rule("/v1/busy", "busy", busy)
    return app.test_client()


@pytest.mark.parametrize("key", [None, "", "wrong", "one,two", "on"])
def test_key__missing_or_wrong__401_problem(key: str | None) -> None:
    answer = client().post("/v1/echo", json={}, headers={} if key is None else {HEADER: key})
    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthorized")
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("key", ["one", "two"])
def test_key__any_of_the_accepted__served(key: str) -> None:
    assert client().post("/v1/echo", json={}, headers={HEADER: key}).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/openapi.json", "/docs", "/status/sample"])
def test_open_pages__without_key__served_and_tell_no_secret(path: str) -> None:
    answer = client().get(path)
    assert answer.status_code in {200, 503}
    assert "hush" not in answer.text


def test_document__first_asked_for_by_several_at_once__whole_for_each() -> None:
    """It is made when it is first read."""
    caller = client()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: caller.application.test_client().get("/openapi.json"), range(4)))
    for answer in answers:
        document = answer.get_json()
        assert {"204", "401", "default"} <= set(document["paths"]["/v1/documented"]["get"]["responses"])
        assert "Default" in document["components"]["responses"]


def test_open_pages__a_path_that_only_begins_alike__needs_the_key() -> None:
    for path in ("/metricsandmore", "/statusx", "/docsx"):
        assert client().get(path).status_code == 401


@pytest.mark.parametrize("body", ["", "[]", "1", '"x"', "{", "null", '{"a": NaN'])
def test_body__no_json_object__400_invalid_json(body: str) -> None:
    answer = client().post("/v1/echo", data=body, content_type="application/json", headers={HEADER: "one"})
    if body == "":
        assert answer.status_code == 200  # a POST without a body is allowed where the view takes none
    else:
        assert (answer.status_code, answer.get_json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/boom", 500, "internal_error"),
        ("/v1/database/42601", 500, "internal_error"),
        ("/v1/database/55P03", 503, "database_unavailable"),
        ("/v1/busy", 503, "unavailable"),
        ("/v1/nothing", 404, "not_found"),
        ("/v1/echo", 405, "method_not_allowed"),
    ],
)
def test_errors__whatever_goes_wrong__a_problem_without_secret_sql_or_stack(path: str, status: int, code: str) -> None:
    answer = client().get(path, headers={HEADER: "one", "X-Request-Id": "trace-1"})
    body = answer.get_json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status)
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["request_id"], answer.headers["X-Request-Id"]) == ("trace-1", "trace-1")
    for secret in ("hush", SQL, "Traceback", "RuntimeError"):
        assert secret not in answer.text
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_request_id__not_of_the_form__replaced() -> None:
    answer = client().get("/metrics", headers={"X-Request-Id": "a b\tc"})
    assert len(answer.headers["X-Request-Id"]) == 36


def test_status__database_down__503_and_says_which_check() -> None:
    answer = client(checks={"broker": lambda: True}).get("/status/sample")
    checks = answer.get_json()["checks"]
    assert (answer.status_code, checks["database"]["ok"], checks["broker"]["ok"]) == (503, False, True)


def test_redact__values_named_like_secrets_and_urls__blotted_out() -> None:
    event = {
        "api_key": "hush",
        "password": "hush",
        "raw_transaction": "hush",
        "url": "redis://user:hush@host/0",
        "rpc": "POST https://node.example/v3/hushhushhushhushhush failed",
    }
    assert "hush" not in str(redact(None, "info", dict(event)))
    assert hide_url_secrets("postgres://u:hush@h/x?sslmode=disable") == "postgres://[hidden]@h/x?sslmode=disable"


@pytest.mark.parametrize(
    ("path", "status", "errors"),
    [
        ("/v1/database/a%00b", 404, None),
        ("/v1/busy?after=1%00", 422, {"after": ["Must not hold a NUL character."]}),
        ("/v1/busy?a%00=1", 422, {"a": ["Must not hold a NUL character."]}),
        ("/v1/busy?after=x&a=1&a=2", 422, {"after": ["Unknown field."], "a": ["Must be given once."]}),
    ],
)
def test_address__with_a_nul__refused_before_any_statement(path: str, status: int, errors: Any) -> None:
    answer = client().get(path, headers={HEADER: "one"})
    assert (answer.status_code, answer.get_json().get("errors")) == (status, errors)
