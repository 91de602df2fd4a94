"""What callers were promised is still promised: endpoints, fields, codes, statuses, kinds and names of effects.

`before/` holds the promises as they were; what came since is listed in `additions.json`, what went in `removals.json`.
"""

import json
from functools import cache
from typing import Any

import pytest

from tests.support import contract

BEFORE = contract.read_before()
REMOVALS: dict[str, str] = json.loads(contract.REMOVALS.read_text())


@pytest.mark.parametrize("subject", sorted(BEFORE))
def test_contract__promised_before__still_promised(subject: str) -> None:
    broken, _ = contract.compare(BEFORE[subject], now()[subject], subject)
    assert [fault for fault in broken if fault not in REMOVALS] == []


def test_contract__agreed_removals__are_exactly_those_found() -> None:
    broken = [fault for subject in BEFORE for fault in contract.compare(BEFORE[subject], now()[subject], subject)[0]]
    assert sorted(REMOVALS) == sorted(broken)
    assert all(REMOVALS.values()), "each has a reason"


def test_contract__additions__are_exactly_those_listed() -> None:
    listed: dict[str, list[str]] = json.loads(contract.ADDITIONS.read_text())
    assert contract.additions(now()) == listed, "read them, then list them with: make additions"


def test_promises__every_subject__is_there_and_not_empty() -> None:
    assert set(BEFORE) == set(now())
    assert all(len(BEFORE[service]) > 10 for service in ("ledger", "protocols", "rewards", "pool", "relayer"))
    assert len(BEFORE["codes"]) > 100
    assert len(BEFORE["movement_kinds"]) > 30
    assert len(BEFORE["message_ids"]["patterns"]) > 30


@pytest.mark.parametrize(
    ("promised", "fault"),
    [
        ({"POST /x": {}}, "GET /x: is missing"),
        ({"GET /x": {"answer 200": ""}}, "GET /x > body a: is missing"),
        ({"GET /x": {"answer 200": "", "body a": "integer"}}, "GET /x > body a: was 'string', is 'integer'"),
        ({"GET /x": {"answer 200": "", "body a": "string, required"}}, "GET /x > body a: was 'string'"),
        ({"GET /x": {"answer 200": "", "body a": "string", "body b": "string, required"}}, "new and required"),
        ({"GET /x": {"body a": "string"}}, "GET /x > answer 200: is missing"),
    ],
)
def test_compare__promise_broken__is_named(promised: dict[str, Any], fault: str) -> None:
    broken, _ = contract.compare({"GET /x": {"answer 200": "", "body a": "string"}}, promised)
    assert len(broken) == 1
    assert fault in broken[0]


def test_compare__promise_added__is_an_addition_alone() -> None:
    before: dict[str, Any] = {"GET /x": {"answer 200": ""}, "stake": ["queued"]}
    after = {"GET /x": {"answer 200": "", "answer 200 a": "string"}, "stake": ["queued", "new"], "GET /y": {}}
    assert contract.compare(before, after) == ([], ["GET /x > answer 200 a: string", "stake: new", "GET /y"])


def test_endpoints__schema_renamed__is_no_difference() -> None:
    assert contract.endpoints(_document("Old")) == contract.endpoints(_document("New"))


def test_endpoints__field_below_a_list_and_a_union__is_named_with_its_type() -> None:
    described = contract.endpoints(_document("Any"))["GET /v1/things"]
    assert described["answer 200 items[].reason"] == "null or object"
    assert described["answer 200 items[].reason.code"] == "string"
    assert described["query limit"] == "integer, maximum 200, required"


@cache
def now() -> dict[str, contract.Promises]:
    return contract.promises()


def _document(name: str) -> dict[str, Any]:
    reason = {"anyOf": [{"$ref": f"#/components/schemas/{name}Reason"}, {"type": "null"}]}
    item = {"type": "object", "properties": {"reason": reason}}
    answer = {"type": "object", "properties": {"items": {"type": "array", "items": item}}}
    limit = {"in": "query", "name": "limit", "required": True, "schema": {"type": "integer", "maximum": 200}}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {
        "paths": {
            "/v1/things": {
                "get": {"operationId": "list_things", "parameters": [limit], "responses": {"200": {"content": content}}}
            }
        },
        "components": {
            "schemas": {name: answer, f"{name}Reason": {"type": "object", "properties": {"code": {"type": "string"}}}}
        },
    }
