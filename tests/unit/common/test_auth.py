"""Keys at the door of a service: rates, wrong keys, expiry, and what every answer tells a browser."""

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from apps.common import auth
from apps.common.api import Blueprint
from apps.common.auth import HEADER
from apps.common.database import make_engine, make_sessions
from apps.common.errors import RequestTimeout
from apps.common.keys import Scope, key_line
from apps.common.service_app import build_app
from apps.common.web_channel import _rendered
from apps.local.api_documents import SERVICES
from tests.support.contract import endpoints, openapi

SHARED = "shared"


@pytest.fixture
def make_client(tmp_path: Path) -> Callable[..., FlaskClient]:
    """A service with one named key, `bff`, whose line says more."""

    def make(**line: str) -> FlaskClient:
        path = tmp_path / "keys.toml"
        path.write_text(key_line("bff", "bff", list(Scope), **line))
        blueprint = Blueprint("sample", "sample", url_prefix="/v1")
        blueprint.get("/things")(blueprint.response(204)(lambda: None))
        sessions = make_sessions(make_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none"))
        return build_app(
            "sample", blueprints=[blueprint], sessions=sessions, accepted_keys=(SHARED,), keys_file=path
        ).test_client()

    return make


def get(client: FlaskClient, key: str | None, address: str = "10.0.0.1", path: str = "/v1/things") -> TestResponse:
    headers = {} if key is None else {HEADER: key}
    return client.get(path, headers=headers, environ_base={"REMOTE_ADDR": address})


def test_rate__of_a_named_key__429_with_retry_after_and_the_standard_headers(
    make_client: Callable[..., FlaskClient],
) -> None:
    client = make_client(rate_per_minute="3")
    answers = [get(client, "bff") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [204, 204, 204, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"key";q=3;w=60'
    assert [re.sub(r"t=\d+", "t", answer.headers["RateLimit"]) for answer in answers] == [
        f'"key";r={left};t' for left in (2, 1, 0, 0)
    ]
    assert answers[3].get_json()["code"] == "rate_limited"
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 20
    # What is refused later, and what is not there, is counted and told alike.
    assert "RateLimit" in get(client, "bff", path="/v1/nothing").headers


def test_rate__of_shared_keys__none(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client(rate_per_minute="1")
    answers = [get(client, SHARED) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {204}
    assert "RateLimit" not in answers[0].headers


def test_wrong_keys__many_from_one_address__told_to_wait_and_right_keys_from_there_are_served(
    make_client: Callable[..., FlaskClient],
) -> None:
    client = make_client()
    answers = [get(client, f"guess-{number}") for number in range(auth.WRONG_KEYS_PER_MINUTE + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {401}
    assert (answers[-1].status_code, answers[-1].get_json()["code"]) == (429, "rate_limited")
    assert "Retry-After" in answers[-1].headers
    assert get(client, SHARED).status_code == 204
    assert get(client, "bff").status_code == 204
    assert get(client, "guess", address="10.0.0.2").status_code == 401


def test_wrong_keys__from_addresses_of_one_ipv6_network__one_caller(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client()
    for number in range(auth.WRONG_KEYS_PER_MINUTE):
        get(client, "guess", address=f"2001:db8::{number:x}")
    assert get(client, "guess", address="2001:db8::ffff").status_code == 429
    assert get(client, "guess", address="2001:db8:0:1::1").status_code == 401


def test_expired_key__401_that_says_so(make_client: Callable[..., FlaskClient]) -> None:
    answer = get(make_client(expires="2001-01-01T00:00:00Z"), "bff")
    assert (answer.status_code, "expired" in answer.get_json()["detail"]) == (401, True)


@pytest.mark.parametrize("service", SERVICES)
def test_bodies__fields_that_say_who_decides__are_those_that_are_held_against_the_key(service: str) -> None:
    """A body that calls it otherwise would let a named key speak for another."""
    found = {
        name.split()[1]
        for endpoint, fields in endpoints(openapi(service)).items()
        for name in fields
        if endpoint.startswith(("POST", "PUT", "PATCH", "DELETE"))
        and re.fullmatch(r"body (\w*by|person|operator|who)", name)
    }
    assert found <= set(auth.WHO_DECIDES)


def test_status__keys_file__told_without_names_or_digests(
    make_client: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    client = make_client()
    found = client.get("/status/sample").get_json()["checks"]["api_keys_file"]
    assert found == {"ok": True, "value": "taken"}
    assert "staking_api_keys_file_taken 1.0" in client.get("/metrics").text


@pytest.mark.parametrize("path", ["/v1/things", "/v1/nothing", "/status/sample", "/metrics", "/openapi.json", "/docs"])
def test_every_answer__security_headers(make_client: Callable[..., FlaskClient], path: str) -> None:
    client = make_client()
    for key in (None, SHARED):
        headers = get(client, key, path=path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers


def test_web_servers_own_refusals__security_headers() -> None:
    _status, headers, _body = _rendered(RequestTimeout())
    assert {"X-Content-Type-Options", "Referrer-Policy", "Cache-Control", "Content-Security-Policy"} <= {
        name for name, _value in headers
    }


def test_docs_page__its_policy__lets_its_own_script_run_and_no_other(make_client: Callable[..., FlaskClient]) -> None:
    answer = make_client().get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy: dict[str, Any] = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
    )
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
