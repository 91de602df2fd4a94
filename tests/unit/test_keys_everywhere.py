"""Every endpoint of every service, without a key and with each kind of key. Read off the URL maps: a new endpoint is here too."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from apps.common.auth import HEADER, is_open
from apps.common.keys import Scope, key_line
from apps.local.api_documents import SERVICES, make_app

READ_METHODS = {"GET", "HEAD"}


@pytest.fixture(scope="module", params=SERVICES)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """A service whose endpoints do nothing; what stands before them is its own."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text("\n".join(key_line(scope, f"key-{scope}", [scope], rate_per_minute="1000000") for scope in Scope))
    found = make_app(request.param, API_KEYS_FILE=str(path))
    found.before_request_funcs = {None: found.before_request_funcs[None]}  # without what an endpoint's own code needs
    for endpoint, view in found.view_functions.items():
        found.view_functions[endpoint] = nothing(view)
    return found


def nothing(view: object) -> Callable[..., tuple[str, int]]:
    """A view in the place of another, with what it says of itself."""

    def view_of_nothing(**_arguments: str) -> tuple[str, int]:
        return "", 204

    view_of_nothing.__dict__.update(vars(view))
    return view_of_nothing


def calls(app: Flask) -> Iterator[tuple[str, str, Scope]]:
    """Method and path of every endpoint that needs a key, with the scope that it needs."""
    for rule in app.url_map.iter_rules():
        path = rule.rule
        for argument in rule.arguments:
            path = path.replace(f"<path:{argument}>", "nobody").replace(f"<{argument}>", "nobody")
        if is_open(path):
            continue
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            scope = getattr(app.view_functions[rule.endpoint], "scope", None)
            yield method, path, scope or (Scope.READ if method in READ_METHODS else Scope.WRITE)


def test_every_endpoint__without_or_with_a_wrong_key__401(app: Flask) -> None:
    client = app.test_client()
    for method, path, _scope in calls(app):
        assert client.open(path, method=method).status_code == 401, (method, path)
    assert client.get("/v1/nothing").status_code == 401
    assert client.get("/v1/nothing", headers={HEADER: "wrong"}).status_code == 401


@pytest.mark.parametrize("held", list(Scope))
def test_every_endpoint__with_a_key_of_one_scope__served_if_that_is_needed_else_403(app: Flask, held: Scope) -> None:
    client = app.test_client()
    for method, path, needed in calls(app):
        answer = client.open(path, method=method, headers={HEADER: f"key-{held}"})
        if held is not needed:
            assert answer.status_code == 403, (method, path)
            if method != "HEAD":
                assert answer.get_json()["code"] == "scope_needed"
                assert f"scope {needed};" in answer.get_json()["detail"]
        elif needed is Scope.OPS and method not in READ_METHODS:
            # Nothing is done that cannot be written down first, and no database is there.
            assert (answer.status_code, answer.get_json()["code"]) == (503, "append_only_unproven"), (method, path)
        else:
            assert answer.status_code == 204, (method, path)


def test_every_endpoint__by_its_method__has_a_scope_of_its_own(app: Flask) -> None:
    """No endpoint that changes something is open to a key for reading."""
    found = list(calls(app))
    assert found
    assert [call for call in found if call[0] not in READ_METHODS and call[2] is Scope.READ] == []


def test_shared_key__every_endpoint__served_as_before(app: Flask) -> None:
    client = app.test_client()
    for method, path, needed in calls(app):
        expected = {503} if needed is Scope.OPS and method not in READ_METHODS else {204}
        assert client.open(path, method=method, headers={HEADER: "key"}).status_code in expected, (method, path)
