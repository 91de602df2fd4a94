"""Which problems an operation can answer with: what its view declares (`Blueprint.refuses`), and what follows from its route.

What follows from the route, such as 404 for one with an id in its path, is told here once and not beside every view.
"""

from collections.abc import Iterator
from typing import Any

import marshmallow as ma
from flask import Flask
from werkzeug.routing import Rule

from apps.common import errors
from apps.common.auth_errors import RateLimited, ScopeNeeded
from apps.common.errors import ServiceError
from apps.common.keys import Scope

Refusals = frozenset[type[ServiceError]]

# Of requests that are no call of any operation, and faults of ours: they stand under `default`.
ANYWHERE: Refusals = frozenset(
    {errors.BadRequest, errors.RequestTimeout, errors.LengthRequired, errors.HeadersTooLarge, errors.ServiceError}
)
_ALWAYS = (
    errors.Unauthorized,
    ScopeNeeded,
    errors.InvalidInput,
    RateLimited,
    errors.Unavailable,
    errors.DatabaseUnavailable,
)
_OF_A_BODY = (errors.InvalidJson, errors.TooLarge, errors.UnsupportedMediaType)


def refusals(app: Flask, rule: Rule, method: str) -> Refusals:
    """Every problem that calling an operation may meet, but for those of `ANYWHERE`."""
    view = app.view_functions[rule.endpoint]
    return frozenset({*followed(rule, method, view), *declared(view)})


def declared(view: Any) -> Refusals:
    """What is said beside a view."""
    found: Refusals = getattr(view, "refusals", frozenset())
    return found


def followed(rule: Rule, method: str, view: Any) -> Iterator[type[ServiceError]]:
    """What a route refuses because of what it is."""
    yield from _ALWAYS
    if rule.arguments:
        yield errors.NotFound
    if method not in {"GET", "HEAD"}:
        yield from _OF_A_BODY
    if method not in {"GET", "HEAD"} and getattr(view, "scope", None) is Scope.OPS:
        yield errors.AppendOnlyUnproven  # the audit log's database
    if names_effect(view):
        yield errors.MessageIdReused


def names_effect(view: Any) -> bool:
    """Whether a view's body carries a message_id, its own or one an item."""
    schema = body_of(view)
    return schema is not None and any("message_id" in level for level in _levels(schema))


def takes_key_header(view: Any) -> bool:
    """Whether the Idempotency-Key header may stand for the body's message_id: where that may be left out."""
    schema = body_of(view)
    field = None if schema is None else schema.fields.get("message_id")
    return field is not None and not field.required


def body_of(view: Any) -> ma.Schema | None:
    """The schema of what a view takes in the body."""
    found: ma.Schema | None = getattr(view, "body_schema", None)
    return found


def _levels(schema: ma.Schema) -> Iterator[dict[str, ma.fields.Field[Any]]]:
    """The fields of a body, and those of the items of its lists."""
    yield schema.fields
    for field in schema.fields.values():
        inner = getattr(field, "inner", None)
        if isinstance(inner, ma.fields.Nested):
            yield inner.schema.fields
