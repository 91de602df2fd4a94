"""The OpenAPI documents say all there is: each operation's name, key, answers, refusals, headers and examples."""

import json
import re
from functools import cache
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, meta

from apps.local.api_documents import SERVICES, document
from tests.support.endpoints.tables import TABLES
from tests.support.endpoints.world import Documented, documented

Json = dict[str, Any]
# Every operation that needs a key can meet these; those with an id in the path or a body more.
ALWAYS = {
    "401": {"unauthorized"}, "403": {"scope_needed"}, "422": {"invalid_input"}, "429": {"rate_limited"},
    "503": {"database_unavailable", "unavailable"},
}  # fmt: skip
OF_A_BODY = {"400": {"invalid_json"}, "413": {"too_large"}, "415": {"unsupported_media_type"}}


@cache
def published(service: str) -> Json:
    found: Json = json.loads(document(service))
    return found


OPERATIONS = [(service, one) for service in SERVICES for one in documented(published(service))]
EVERY = [pytest.param(service, one, id=f"{service}-{one.name}") for service, one in OPERATIONS]
KEYED = [
    pytest.param(service, one, id=f"{service}-{one.name}") for service, one in OPERATIONS if one.content["security"]
]


@pytest.mark.parametrize(("service", "operation"), EVERY)
def test_openapi__every_operation__is_complete(service: str, operation: Documented) -> None:
    content = operation.content
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation.name)
    assert 10 < len(content["summary"]) < 160
    assert content["tags"]
    assert {"$ref": "#/components/parameters/RequestId"} in content["parameters"]
    answers = {status: resolved(service, one) for status, one in content["responses"].items()}
    good = {status: answer for status, answer in answers.items() if status.startswith("2")}
    assert good
    for status, answer in answers.items():
        assert answer["description"], status
        assert "X-Request-Id" in answer["headers"], status
        for media in answer["content"].values():
            assert media["schema"], status
    for parameter in [resolved(service, one) for one in content["parameters"]]:
        assert "null" not in json.dumps(parameter["schema"]), parameter["name"]


@pytest.mark.parametrize(("service", "operation"), KEYED)
def test_openapi__every_operation_with_a_key__names_its_refusals(service: str, operation: Documented) -> None:
    content = operation.content
    assert content["security"] in ([{"internal_key": [scope]}] for scope in ("read", "write", "ops"))
    found = {status: codes(service, one) for status, one in content["responses"].items() if status > "3"}
    wanted = dict(ALWAYS)
    if operation.writes:
        wanted |= OF_A_BODY
    if "{" in operation.path:
        wanted["404"] = {"not_found"}
    assert {status: found.get(status, set()) & expected for status, expected in wanted.items()} == wanted
    assert "internal_error" in found["default"]


@pytest.mark.parametrize(("service", "operation"), KEYED)
def test_openapi__every_answer__has_an_example_of_its_shape(service: str, operation: Documented) -> None:
    content = operation.content
    for status, answer in content["responses"].items():
        if status.startswith("2"):
            media = next(iter(answer["content"].values()))
            assert "example" in media, (
                f"{operation.name} {status}: add it to tests/support/endpoints, then: make examples"
            )
            assert faults(service, media["schema"], media["example"]) == []
    for media in content.get("requestBody", {}).get("content", {}).values():
        assert faults(service, media["schema"], media["example"]) == []
    for parameter in content["parameters"]:
        if parameter.get("in") == "path":
            assert faults(service, parameter["schema"], parameter["example"]) == []


@pytest.mark.parametrize(("service", "operation"), KEYED)
def test_openapi__write_with_a_message_id__says_how_it_is_replayed(service: str, operation: Documented) -> None:
    if "message_id" not in json.dumps(resolved_body(service, operation)):
        return
    replay = operation.content["responses"]["200"]
    assert "Idempotent-Replay" in replay["headers"]
    assert "message_id_reused" in codes(service, operation.content["responses"]["422"])


@pytest.mark.parametrize("service", SERVICES)
def test_openapi__every_problem__has_an_example_of_the_documents_shape(service: str) -> None:
    components = published(service)["components"]
    for code, example in components["examples"].items():
        value = example["value"]
        assert value["code"] == code
        assert value["type"] == f"urn:staking:error:{code}"
        assert faults(service, {"$ref": "#/components/schemas/Problem"}, value) == []


@pytest.mark.parametrize("service", SERVICES)
def test_openapi__names__are_each_given_once(service: str) -> None:
    names = [one.name for one in documented(published(service))]
    assert len(names) == len(set(names))
    assert {"get_status", "get_metrics"} < set(names)


@pytest.mark.parametrize("service", SERVICES)
def test_openapi__every_schema__is_one(service: str) -> None:
    for name, schema in published(service)["components"]["schemas"].items():
        assert meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), name


@pytest.mark.parametrize("service", SERVICES)
def test_openapi__every_reference__leads_somewhere_and_nothing_lies_unused(service: str) -> None:
    text = document(service)
    for reference in set(re.findall(r'"(#/[^"]+)"', text)):
        assert resolved(service, {"$ref": reference})
    for kind, components in published(service)["components"].items():
        for name in components:
            assert kind == "securitySchemes" or f'"#/components/{kind}/{name}"' in text or name in OPTIONAL, (
                kind,
                name,
            )


# The parameter of operations whose body may leave its message_id out, the header of their replays.
OPTIONAL = {"IdempotencyKey", "IdempotentReplay"}


@pytest.mark.parametrize("service", SERVICES)
def test_tables__every_operation__is_called_somehow(service: str) -> None:
    keyed = {one.name for one in documented(published(service)) if one.content["security"]}
    assert set(TABLES[service]) == keyed, "add it to tests/support/endpoints"


def resolved(service: str, part: Json) -> Json:
    while "$ref" in part:
        target: Any = published(service)
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part


def resolved_body(service: str, operation: Documented) -> Json:
    """The fields of what an operation takes, its own and those of its items."""
    content = operation.content.get("requestBody", {}).get("content", {})
    for media in content.values():
        schema = resolved(service, media["schema"])
        lists = [
            resolved(service, one["items"]) for one in schema["properties"].values() if "$ref" in one.get("items", {})
        ]
        return {"own": schema["properties"], "items": [one["properties"] for one in lists]}
    return {}


def codes(service: str, answer: Json) -> set[str]:
    found = set(resolved(service, answer)["x-problem-codes"])
    assert set(resolved(service, answer)["content"]["application/problem+json"]["examples"]) == found
    return found


def faults(service: str, schema: Json, value: Any) -> list[str]:
    """What is wrong with a value that should have a schema's shape."""
    whole = {**schema, "components": published(service)["components"]}
    return [str(error) for error in Draft202012Validator(whole).iter_errors(value)]
