"""What a service's OpenAPI document says beyond paths and schemas: the key, what each operation refuses, the headers of both
ways, and real answers as examples (`examples.json` beside the routes)."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flask import Flask
from marshmallow.validate import Regexp
from werkzeug.routing import Rule

from apps.common.errors import ServiceError
from apps.common.idempotency import REPLAY_HEADER
from apps.common.keys import Scope
from apps.common.openapi_components import CONVENTIONS, PROBLEM_TYPE, RATE_HEADERS, add_components, problem_answer
from apps.common.refusals import Refusals, names_effect, refusals, takes_key_header
from apps.common.wire import ADDRESS, BLOCK_NUMBER, MESSAGE_ID, POOL_ID, TX_HASH, USER_ID, Matches, OpenApi, published

EXAMPLES = "examples.json"
# Path parameters that have a pattern wherever they stand; a view checks them.
_PATH_PATTERNS = {
    "message_id": MESSAGE_ID,
    "user_id": USER_ID,
    "pool_id": POOL_ID,
    "number": BLOCK_NUMBER,
    "tx_hash": TX_HASH,
    "address": ADDRESS,
}
_OPS_TAG = {"name": "ops", "description": "For the people who run the system."}
_HEALTH_TAG = {"name": "health", "description": "Open pages: whether the service can serve, and its metrics."}


# As a person reads them.
_ORDER = ("openapi", "info", "servers", "security", "tags", "paths", "components")
_OPERATION_ORDER = (
    *("operationId", "summary", "description", "tags", "security"),
    *("parameters", "requestBody", "responses"),
)


@dataclass(frozen=True)
class _Operation:
    """An operation of the document, its rule and its view."""

    rule: Rule
    method: str
    view: Any
    content: OpenApi


def document_field(_converter: Any, field: Any, **_kwargs: Any) -> OpenApi:
    """What OpenAPI says of a field: its own words where it has some, and the pattern that it is held against."""
    found: OpenApi = dict(getattr(field, "openapi", {}))
    for validator in field.validators:
        if isinstance(validator, Matches | Regexp):
            found["pattern"] = published(cast(re.Pattern[str], validator.regex))
        if isinstance(validator, Matches) and "description" not in field.metadata:
            found["description"] = validator.message
    return found


def complete(app: Flask, document: OpenApi) -> OpenApi:
    """The whole document, made of what flask-smorest found in the views."""
    examples = _read_examples(app)
    found = list(_operations(app, document))
    add_components(document, examples, {cls for one in found for cls in refusals(app, one.rule, one.method)})
    for operation in found:
        _complete_operation(app, document, operation, examples.get(operation.content["operationId"], {}))
    _add_open_pages(app, document, examples)
    document["info"]["description"] = CONVENTIONS.strip()
    document["servers"] = [{"url": "/", "description": "This service."}]
    document["security"] = [{"internal_key": []}]
    tags = {tag for path in document["paths"].values() for one in path.values() for tag in one["tags"]}
    document["tags"] += [tag for tag in (_OPS_TAG, _HEALTH_TAG) if tag["name"] in tags]
    for item in document["paths"].values():
        item.update({method: _in_order(content, _OPERATION_ORDER) for method, content in item.items()})
    return _in_order(document, _ORDER)


def _in_order(content: OpenApi, order: tuple[str, ...]) -> OpenApi:
    return {name: content[name] for name in order if name in content} | content


def _read_examples(app: Flask) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for blueprint in app.blueprints.values():
        path = Path(blueprint.root_path) / EXAMPLES
        if path.is_file():
            found.update(json.loads(path.read_text()))
    return found


def _operations(app: Flask, document: OpenApi) -> Iterator[_Operation]:
    """Every operation that flask-smorest documented, with parameters of its path made its own, and its name."""
    for item in document["paths"].values():
        shared = item.pop("parameters", [])
        for content in item.values():
            content["parameters"] = [*map(dict, shared), *content.get("parameters", [])]
    for rule in app.url_map.iter_rules():
        item = document["paths"].get(re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", rule.rule), {})
        view = app.view_functions[rule.endpoint]
        for method in [name for name in item if name.upper() in (rule.methods or ())]:
            item[method] = {"operationId": view.__name__, **item[method]}
            yield _Operation(rule, method.upper(), view, item[method])


def _complete_operation(app: Flask, document: OpenApi, operation: _Operation, example: Mapping[str, Any]) -> None:
    content, view = operation.content, operation.view
    scope: Scope = view.scope
    content["tags"] = [_OPS_TAG["name"]] if scope is Scope.OPS else content["tags"]
    content["security"] = [{"internal_key": [scope.value]}]
    asked = example.get("request", {})
    for parameter in content["parameters"]:
        _plain_parameter(parameter, asked.get(parameter["in"], {}))
    content["parameters"].append({"$ref": "#/components/parameters/RequestId"})
    if takes_key_header(view):
        content["parameters"].append({"$ref": "#/components/parameters/IdempotencyKey"})
    if "requestBody" in content:
        media = content["requestBody"]["content"]["application/json"]
        schema = document["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
        content["requestBody"]["required"] = bool(schema.get("required"))
        if "body" in asked:
            media["example"] = asked["body"]
    answers = content["responses"]
    for status, answer in answers.items():
        if status.startswith("2"):
            headers = answer.setdefault("headers", {})
            headers |= {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}, **RATE_HEADERS}
            if status == "200" and len([one for one in answers if one.startswith("2")]) > 1 and names_effect(view):
                headers[REPLAY_HEADER] = {"$ref": "#/components/headers/IdempotentReplay"}
            for media in answer.get("content", {}).values():
                if status in example.get("answers", {}):
                    media["example"] = example["answers"][status]
    kept = {status: answer for status, answer in answers.items() if status.startswith("2")}
    problems = {
        str(status): _refused(document, classes)
        for status, classes in _by_status(refusals(app, operation.rule, operation.method)).items()
    }
    content["responses"] = {**kept, **problems, "default": {"$ref": "#/components/responses/Default"}}


def _plain_parameter(parameter: OpenApi, examples: Mapping[str, Any]) -> None:
    """A parameter is given or left out: it is never null."""
    schema = parameter["schema"]
    if isinstance(schema.get("type"), list):
        schema["type"] = next(kind for kind in schema["type"] if kind != "null")
    if "enum" in schema:
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    if schema.get("default", ...) is None:
        del schema["default"]
    if parameter["in"] == "path" and parameter["name"] in _PATH_PATTERNS:
        schema["pattern"] = published(_PATH_PATTERNS[parameter["name"]])
    if parameter["name"] in examples:
        parameter["example"] = examples[parameter["name"]]


def _by_status(classes: Refusals) -> dict[int, list[type[ServiceError]]]:
    found: dict[int, list[type[ServiceError]]] = {}
    for cls in sorted(classes, key=lambda cls: (cls.status, cls.code)):
        found.setdefault(cls.status, []).append(cls)
    return found


def _refused(document: OpenApi, classes: list[type[ServiceError]]) -> OpenApi:
    """The answer of a status. One that many operations have alike is written once."""
    shared = document["components"]["responses"]
    name = "Or".join(cls.__name__ for cls in classes)
    if len(classes) > 2 and name not in shared:
        return problem_answer(classes)
    shared.setdefault(name, problem_answer(classes))
    return {"$ref": f"#/components/responses/{name}"}


def _add_open_pages(app: Flask, document: OpenApi, examples: Mapping[str, Any]) -> None:
    """The pages that need no key: status and metrics."""
    document["components"]["schemas"]["Status"] = {
        "type": "object",
        "properties": {
            "service": {"type": "string"},
            "status": {"type": "string", "enum": ["ok", "unavailable"]},
            "checks": {
                "type": "object",
                "description": "Each part that the next call needs: `ok`, and what was found or what is wrong.",
                "additionalProperties": {
                    "type": "object",
                    "properties": {"ok": {"type": "boolean"}},
                    "required": ["ok"],
                },
            },
        },
        "required": ["service", "status", "checks"],
    }
    status: OpenApi = {"schema": {"$ref": "#/components/schemas/Status"}}
    answers = examples.get("get_status", {}).get("answers", {})
    healthy = {**status, "example": answers["200"]} if "200" in answers else status
    busy = {"schema": {"$ref": "#/components/schemas/Problem"}}
    pages = {
        "status": {
            "operationId": "get_status",
            "summary": "Whether the next call can succeed, part by part.",
            "responses": {
                "200": _open_answer("Every part answers.", {"application/json": healthy}),
                "503": _open_answer("A part is down.", {"application/json": status, PROBLEM_TYPE: busy}),
            },
        },
        "metrics": {
            "operationId": "get_metrics",
            "summary": "Metrics for Prometheus.",
            "responses": {"200": _open_answer("Its text format.", {"text/plain": {"schema": {"type": "string"}}})},
        },
    }
    for endpoint, page in pages.items():
        rule = next(app.url_map.iter_rules(endpoint))
        request_id = {"$ref": "#/components/parameters/RequestId"}
        described = {**page, "tags": [_HEALTH_TAG["name"]], "security": [], "parameters": [request_id]}
        document["paths"][rule.rule] = {"get": described}


def _open_answer(description: str, content: OpenApi) -> OpenApi:
    return {
        "description": description,
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
        "content": content,
    }
