"""schemathesis over one service in this process: its document and its app, whatever the document promises is held against it."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import schemathesis
from flask import Flask
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from apps.common.auth import HEADER
from tests.support.endpoints.call import Json
from tests.support.protocols import serving

# What no schema can say: fields of operations whose rules hang on other fields, on what is there, or on arithmetic.
BEYOND_SCHEMAS: Mapping[str, set[str]] = {
    "create_movement": {"user_id"},  # needed or refused by the kind
    "create_movements": {"movements", "user_id"},
    "create_transaction": {"to"},  # nobody's address
    "release_parked": {"amount_wei"},  # of the sign of what is parked
    "rescan_history": {"from_block", "to_block"},  # what was read
    "accept_share_difference": {"block_number"},
    "create_reconciliation": {"block"},
    "get_earnings": {"from", "to"},  # one before the other, and not longer apart than a span may be
    "get_statement": {"from", "to"},
    "create_webhook": {"url"},  # where nothing is sent to
    "change_webhook": {"url"},  # the same, and one of two fields
    "replay_webhook": {"after_sequence"},  # one of two fields
    "resolve_walk": {"account", "action", "batch_id", "block_number", "code", "effect", "gas_cost_wei", "log_index"},
}
CHECKSUM = "The checksum of this address is wrong."
LONGEST_WAIT_SEC = 30
MANY_EXAMPLES = 50
ANY_WRITE = {"message_id", "Idempotency-Key"}  # one of the two, and both alike
# Of which operations a 503 tells the truth: of a block before there was Lido, which a node that has lost its state shows alike.
UNAVAILABLE = {"get_lido_state", "create_reconciliation"}


def faults(app: Flask, key: str | None, examples: int, seed: int = 1) -> list[str]:
    """Run every check of schemathesis over every operation; returns what they found, each fault once."""
    found: Counter[str] = Counter()
    with serving(app) as url:
        for event in from_schema(_schema(app, url, key, examples, seed)).execute():
            if isinstance(event, events.NonFatalError):
                found[f"{event.label}: {event.value!r}"] += 1
            if isinstance(event, events.FatalError):
                raise event.exception
            if isinstance(event, events.ScenarioFinished):
                found.update(_failed(event))
                if key is None:
                    found.update(_let_in(event))
    return [f"{fault} ({count} times)" for fault, count in sorted(found.items())]


def _failed(event: events.ScenarioFinished) -> Iterator[str]:
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.status != Status.FAILURE or check.failure_info is None:
                continue
            case, answer = event.recorder.cases[case_id].value, event.recorder.interactions[case_id].response
            if not _granted(check.name, case, answer):
                said = "" if answer is None else answer.content.decode(errors="replace")[:500]
                sent = check.failure_info.code_sample[:500]
                yield f"{case.operation.label}: {check.name}: {check.failure_info.failure.message[:200]} {sent} -> {said}"


def _let_in(event: events.ScenarioFinished) -> Iterator[str]:
    """Answers other than a 401 to somebody without a key, but for the open pages."""
    for case_id, interaction in event.recorder.interactions.items():
        case = event.recorder.cases[case_id].value
        status = None if interaction.response is None else interaction.response.status_code
        if status not in {401, 429} and case.operation.definition.raw["security"]:
            yield f"{case.operation.label}: without a key: {status}"


def _granted(check: str, case: Any, answer: Any) -> bool:
    """Whether what a check found is as it should be."""
    name = case.operation.definition.raw["operationId"]
    if check == "not_a_server_error":
        return name in UNAVAILABLE and answer is not None and answer.status_code == 503
    if check == "allow_header_conformance":
        # The same address is an id of another path: /v1/movements/batch.
        others = [path for path in case.operation.schema.raw_schema["paths"] if path != case.operation.path]
        return any(re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), case.operation.path) for path in others)
    return check == "positive_data_acceptance" and answer is not None and _beyond(name, json.loads(answer.content))


def _beyond(name: str, problem: Json) -> bool:
    """Whether a refusal of well-formed input is by a rule that no schema can say."""
    if problem["status"] == 422 and problem["code"] != "invalid_input":
        return True
    told = {name: texts for name, texts in problem.get("errors", {}).items() if texts != [CHECKSUM]}
    fields = {field.rsplit(".", 1)[-1] for field in told}
    return bool(problem.get("errors")) and fields <= BEYOND_SCHEMAS.get(name, set()) | ANY_WRITE


def _schema(app: Flask, url: str, key: str | None, examples: int, seed: int) -> Any:
    document: Json = app.test_client().get("/openapi.json").get_json()
    for item in document["paths"].values():
        for content in item.values():
            content["responses"].pop("default", None)  # any status would then be right
            if examples < MANY_EXAMPLES:  # the same header of every operation is a fifth of all calls
                content["parameters"].remove({"$ref": "#/components/parameters/RequestId"})
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "cache": {"enabled": False},  # what an earlier run met must not decide what this one does
            "base-url": url,
            "headers": {HEADER: key} if key else {},
            "generation": {"max-examples": examples, "allow-x00": False, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": key is not None}},
            "continue-on-failure": True,
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)

    @schema.hook
    def map_body(_context: Any, body: Any) -> Any:
        return _whole(body)

    @schema.hook
    def map_query(_context: Any, query: Any) -> Any:
        wait = (query or {}).get("wait")
        if isinstance(wait, int | float) and wait <= LONGEST_WAIT_SEC:
            query["wait"] = min(wait, 0)  # as right or wrong as before, and nobody sits here
        return query

    return schema


def _whole(value: Any) -> Any:
    """To a schema 1.0 is an integer; to the services it is none, as some languages' readers make a float of it."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
