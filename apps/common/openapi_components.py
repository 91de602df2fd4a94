"""What operations of an OpenAPI document share: the problem document, problems by code, headers and the key."""

import json
from collections.abc import Mapping
from typing import Any

from apps.common.auth import HEADER
from apps.common.errors import ServiceError, problem
from apps.common.refusals import ANYWHERE
from apps.common.wire import MESSAGE_ID, OpenApi, published

# On every answer to a key that has a rate.
RATE_HEADERS: OpenApi = {
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
}
PROBLEM_TYPE = "application/problem+json"
# The id of every example's request.
REQUEST_ID = "01997c5a-8f00-7000-8000-00000000c0de"

CONVENTIONS = """
**Key.** Every call carries `X-Internal-Key`; the pages under *health* are open.

**Amounts** are wei as decimal strings below 2^256; times are RFC 3339 in UTC with `Z`.

**Once.** A write with an effect carries a `message_id` that its caller chooses and keeps: the same call sent again has no
second effect. The first answer is 201 (202 where the work goes on), a replay 200 with `Idempotent-Replay: true`. The same
id with another body is refused with `message_id_reused`.

**Problems** are `application/problem+json` (RFC 9457) with a stable `code`; `errors` names each field. After a 409
`in_progress`, a 429 or a 503 the same call may be sent again, after `Retry-After` seconds where that is given. Bodies are
strict and of 8 MiB at most: unknown fields and query parameters are refused.

**Lists** take `limit` and `after`; pass `next` as `after` for the next page.
"""


# As `apps.common.errors.problem` makes it.
_PROBLEM: OpenApi = {
    "type": "object",
    "description": "Why a call was refused or could not be answered (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "`urn:staking:error:` and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "For people; its words may change."},
        "code": {"type": "string", "description": "Stable; see docs/errors.md."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "object",
            "description": "What is wrong with each field.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "pool_request_id": {"type": "string", "description": "Of the request that was kept as rejected."},
    },
    "required": ["type", "title", "status", "detail", "code", "request_id"],
}


def add_components(document: OpenApi, examples: Mapping[str, Any], refused: set[type[ServiceError]]) -> None:
    components = document["components"]
    used = json.dumps([document["paths"], components["schemas"]])
    components["schemas"] = {
        name: _answer_schema(schema)
        for name, schema in sorted(components["schemas"].items())
        if f'"#/components/schemas/{name}"' in used
    } | {"Problem": _PROBLEM}
    anywhere = sorted(ANYWHERE, key=lambda cls: cls.status)
    everything = sorted({*refused, *anywhere}, key=lambda cls: cls.code)
    seen = examples.get("problems", {})
    components["examples"] = {
        cls.code: {"summary": cls().title, "value": seen.get(cls.code, {**problem(cls()), "request_id": REQUEST_ID})}
        for cls in everything
    }
    components["responses"] = {"Default": problem_answer(anywhere)}
    components["parameters"] = {
        "RequestId": _header_parameter("X-Request-Id", "Returned, logged and passed on; made where it is missing."),
        "IdempotencyKey": _header_parameter(
            "Idempotency-Key",
            "The message_id, where the body has none; given in both places, they must be alike.",
            pattern=published(MESSAGE_ID),
        ),
    }
    components["headers"] = {
        "RequestId": _header("The request's id: the one given, or a new one; it finds the request in the logs."),
        "IdempotentReplay": _header("`true`: this message_id was known, and nothing happened again.", enum=["true"]),
        "RetryAfter": _header("Seconds to wait before the same call is sent again.", type="integer", minimum=0),
        "RateLimit": _header(
            'What is left of the key\'s calls, and in how many seconds all are there again: `"key";r=…;t=…`.'
        ),
        "RateLimitPolicy": _header('How many calls the key has, and in how many seconds: `"key";q=…;w=60`.'),
        "WWWAuthenticate": _header("Which header carries the key."),
    }
    components["securitySchemes"] = {
        "internal_key": {"type": "apiKey", "in": "header", "name": HEADER, "description": "The key of the caller."}
    }


def problem_answer(classes: list[type[ServiceError]]) -> OpenApi:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if any(cls.status in {429, 503} or cls.code == "in_progress" for cls in classes):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if any(cls.code == "rate_limited" for cls in classes):
        headers |= RATE_HEADERS
    if any(cls.status == 401 for cls in classes):
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWWAuthenticate"}
    return {
        "description": "\n".join(f"- `{cls.code}`: {_meaning(cls)}" for cls in classes),
        "headers": headers,
        "content": {
            PROBLEM_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {cls.code: {"$ref": f"#/components/examples/{cls.code}"} for cls in classes},
            }
        },
        "x-problem-codes": [cls.code for cls in classes],
    }


def _meaning(cls: type[ServiceError]) -> str:
    return " ".join((cls.__doc__ or "").split())


def _answer_schema(schema: OpenApi) -> OpenApi:
    """Of an answer every field is always there, null where it says so. Bodies are those that refuse unknown fields."""
    if "properties" not in schema or "additionalProperties" in schema:
        return schema
    for field in schema["properties"].values():
        field.pop("default", None)
    return {**schema, "required": list(schema["properties"])}


def _header(description: str, **schema: Any) -> OpenApi:
    return {"description": description, "schema": {"type": "string", **schema}}


def _header_parameter(name: str, description: str, **schema: Any) -> OpenApi:
    return {"name": name, "in": "header", "required": False, **_header(description, **schema)}
