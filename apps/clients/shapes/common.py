"""Shapes that several services answer with or take."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import marshmallow as ma

from apps.common import wire
from apps.common.shapes import Time, given


@dataclass(frozen=True)
class Reason:
    """Why something is as it is: `code` is stable and may be acted on, `detail` is for people."""

    code: str
    detail: str


@dataclass(frozen=True)
class Difference:
    """One thing that an audit expected and found otherwise; numbers as decimal strings."""

    subject: str
    field: str
    expected: str
    found: str


@dataclass(frozen=True)
class Audit:
    """The verdict of an audit."""

    id: str
    ok: bool
    differences: list[Difference]
    created_at: Time


# Of a request for an audit: how much of it.
FULL = {"description": "False: only what came after the last clean audit, and a part of what is older."}


@dataclass(frozen=True)
class AuditPage:
    """Audits, newest first; `next` is the cursor of the next page."""

    items: list[Audit]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class NumberPageQuery:
    """The query of a list whose cursor is a number: of a row, a block, a sequence."""

    limit: int = given(wire.limit_field, load_default=wire.DEFAULT_LIMIT)
    after: str | None = given(wire.cursor_field, regex=wire.NUMBER, load_default=None)


# The longest that a call may wait for something to change.
MAX_WAIT_SEC = 30


def wait_field(**options: Any) -> ma.fields.Float:
    """``?wait=``: how many seconds a call waits at most for something to change; 0 answers at once."""
    return ma.fields.Float(**{"load_default": 0.0, **options}, validate=ma.validate.Range(0, MAX_WAIT_SEC))


@dataclass(frozen=True, kw_only=True)
class IdPageQuery:
    """The query of a list, newest first, whose cursor is an id."""

    limit: int = given(wire.limit_field, load_default=wire.DEFAULT_LIMIT)
    after: str | None = given(wire.cursor_field, regex=wire.UUID_TEXT, load_default=None)


@dataclass(frozen=True, kw_only=True)
class UserPageQuery:
    """The query of a list in the order of users, whose cursor is one of them."""

    limit: int = given(wire.limit_field, load_default=wire.DEFAULT_LIMIT)
    after: str | None = given(wire.cursor_field, regex=wire.USER_ID, load_default=None)


@dataclass(frozen=True, kw_only=True)
class SpanQuery:
    """The query of what happened after one time and up to another, which is now where it is not named."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)
    start: datetime = given(wire.TimeField, required=True, data_key="from")
    end: datetime | None = given(wire.TimeField, load_default=None, data_key="to")


@dataclass(frozen=True, kw_only=True)
class PoolQuery:
    """A query about one pool; the service's own where none is named."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)


def one_of(names: tuple[str, ...]) -> ma.validate.OneOf:
    """A check that a text is one of these."""
    return ma.validate.OneOf(names)
