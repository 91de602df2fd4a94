"""Ids, times, lists and the marshmallow fields every service shares."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import marshmallow as ma
import uuid_utils

from apps.common.errors import InvalidInput

MESSAGE_ID = re.compile(r"[A-Za-z0-9._:@-]{1,200}", re.ASCII)
USER_ID = re.compile(r"(?!@)[A-Za-z0-9._:|+=@-]{1,128}", re.ASCII)
POOL_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
MAX_LIMIT = 200
DEFAULT_LIMIT = 50


def new_id(after: str | None = None) -> str:
    """A UUIDv7 as text: ordered by time, so that an index grows at its end.

    Where the order means something, `after` is the last id there is: a host whose clock is behind the one that made it
    must not put the newest row before it.
    """
    made = str(uuid_utils.uuid7())
    return made if after is None or made > after else str(UUID(int=UUID(after).int + 1))


def format_time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with ``Z`` and microseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_text(moment: datetime) -> str:
    """`format_time` of a moment that is certainly there."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Read RFC 3339; ``ValueError`` where the zone is missing."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("Give a time with a zone, such as 2026-01-31T12:00:00Z.")
    return moment


def _pattern(regex: re.Pattern[str], message: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if not regex.fullmatch(value):
            raise ma.ValidationError(message)

    return check


def message_id_field(**kwargs: Any) -> ma.fields.String:
    check = _pattern(MESSAGE_ID, "Must be 1 to 200 characters out of A-Z a-z 0-9 . _ : @ -")
    return ma.fields.String(required=True, validate=check, **kwargs)


def user_id_field(**kwargs: Any) -> ma.fields.String:
    text = "Must be 1 to 128 characters out of A-Z a-z 0-9 . _ : | + = @ -, not starting with @."
    return ma.fields.String(validate=_pattern(USER_ID, text), **kwargs)


def pool_id_field(**kwargs: Any) -> ma.fields.String:
    return ma.fields.String(validate=_pattern(POOL_ID, "Must be 1 to 64 characters out of A-Z a-z 0-9 . _ -"), **kwargs)


def check_user_id(value: str) -> str:
    """Validate a user id that stands in a path."""
    if not USER_ID.fullmatch(value):
        raise InvalidInput(errors={"user_id": ["Must be 1 to 128 characters out of A-Z a-z 0-9 . _ : | + = @ -"]})
    return value


class TimeField(ma.fields.Field[datetime]):
    """RFC 3339 in and out."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return format_time(value)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        try:
            return parse_time(value.replace(" ", "+"))
        except (ValueError, AttributeError) as error:
            raise ma.ValidationError("Give a time with a zone, such as 2026-01-31T12:00:00Z.") from error


class BodySchema(ma.Schema):
    """Bodies: unknown fields are refused, so that a misspelt optional field is not silently ignored."""

    class Meta:
        unknown = ma.RAISE


class QuerySchema(ma.Schema):
    """Queries: unknown parameters are passed over, as proxies and caches may add their own."""


class PageQuerySchema(QuerySchema):
    """``?limit=`` and ``?after=``."""

    limit = ma.fields.Integer(load_default=DEFAULT_LIMIT, validate=ma.validate.Range(1, MAX_LIMIT))
    after = ma.fields.String(load_default=None, allow_none=True)


def page(items: Sequence[Mapping[str, Any]], limit: int, cursor: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """Shape a list: fetch ``limit + 1`` rows and give them all here; the surplus row only says that there is more."""
    shown = list(items[:limit])
    return {"items": shown, "next": cursor(shown[-1]) if len(items) > limit else None}


def integer_cursor(after: str | None) -> int:
    """Read a cursor that is a number; 0 where there is none."""
    if after is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", after, re.ASCII):
        raise InvalidInput(errors={"after": ["Not a cursor of this list; take the value of `next`."]})
    return int(after)
