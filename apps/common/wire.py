"""Ids, times, lists and the marshmallow fields every service shares."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, overload
from uuid import UUID

import marshmallow as ma
import uuid_utils

from apps.common.errors import InvalidInput
from apps.common.schemas import PlainSchema

T = TypeVar("T")
# A piece of an OpenAPI document. A field whose value is text on the wire and something else in Python tells its own.
OpenApi = dict[str, Any]

# Ids travel in paths, and no URL can carry "." or "..": what resolves a URL removes them, with the segment before them.
_NO_DOTS = r"(?!\.{1,2}\Z)"
MESSAGE_ID = re.compile(_NO_DOTS + r"[A-Za-z0-9._:@-]{1,200}", re.ASCII)
USER_ID = re.compile(_NO_DOTS + r"(?!@)[A-Za-z0-9._:|+=@-]{1,128}", re.ASCII)
POOL_ID = re.compile(_NO_DOTS + r"[A-Za-z0-9._-]{1,64}", re.ASCII)
BLOCK_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
TX_HASH = re.compile(r"0x[0-9a-fA-F]{64}", re.ASCII)
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
MESSAGE_ID_RULE = "Must be 1 to 200 characters out of A-Z a-z 0-9 . _ : @ -, but not . or .."
USER_ID_RULE = "Must be 1 to 128 characters out of A-Z a-z 0-9 . _ : | + = @ -, not starting with @, and not . or .."
POOL_ID_RULE = "Must be 1 to 64 characters out of A-Z a-z 0-9 . _ -, but not . or .."
NOT_A_CURSOR = "Not a cursor of this list; take the value of `next`."
MAX_BLOCK = 2**53

NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
MAX_LIMIT = 200
DEFAULT_LIMIT = 50


def new_id(after: str | None = None) -> str:
    """A UUIDv7 as text: ordered by time, so that an index grows at its end.

    Where the order means something, `after` is the last id there is: a host whose clock is behind the one that made it
    must not put the newest row before it.
    """
    made = str(uuid_utils.uuid7())
    return made if after is None or made > after else str(UUID(int=UUID(after).int + 1))


def request_id_of(text: object) -> str | None:
    """A request id that a caller gave, if it is one."""
    return text if isinstance(text, str) and REQUEST_ID.fullmatch(text) else None


@overload
def format_time(moment: datetime) -> str: ...
@overload
def format_time(moment: None) -> None: ...
@overload
def format_time(moment: datetime | None) -> str | None: ...
def format_time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with ``Z`` and microseconds; None for None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Read RFC 3339, as UTC; ``ValueError`` where the zone is missing, or where UTC has no such year."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("Give a time with a zone, such as 2026-01-31T12:00:00Z.")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("Give a time between the years 1 and 9999 of UTC.") from error


def nullable(kind: str, field: ma.fields.Field[Any]) -> str | list[str]:
    """The type of a field's value, null allowed where the field takes it."""
    return [kind, "null"] if field.allow_none else kind


class Matches(ma.validate.Validator):
    """A check that a pattern takes a text whole; OpenAPI shows the pattern."""

    def __init__(self, regex: re.Pattern[str], message: str) -> None:
        self.regex = regex
        self.message = message

    def __call__(self, value: str) -> str:
        if not self.regex.fullmatch(value):
            raise ma.ValidationError(self.message)
        return value


def published(regex: re.Pattern[str]) -> str:
    """A pattern in the dialect of JSON Schema (ECMA 262), which takes the whole text."""
    plain = regex.pattern.removeprefix(r"\A").removesuffix(r"\Z").replace(r"\Z", "$")
    return f"^(?:{plain})$" if "|" in plain else f"^{plain}$"


def message_id_field(**kwargs: Any) -> ma.fields.String:
    return ma.fields.String(**{"required": True, **kwargs}, validate=Matches(MESSAGE_ID, MESSAGE_ID_RULE))


def user_id_field(**kwargs: Any) -> ma.fields.String:
    return ma.fields.String(validate=Matches(USER_ID, USER_ID_RULE), **kwargs)


def pool_id_field(**kwargs: Any) -> ma.fields.String:
    return ma.fields.String(validate=Matches(POOL_ID, POOL_ID_RULE), **kwargs)


def check_user_id(value: str) -> str:
    """Validate a user id that stands in a path."""
    if not USER_ID.fullmatch(value):
        raise InvalidInput(errors={"user_id": [USER_ID_RULE]})
    return value


def check_pool_id(value: str) -> str:
    """Validate a pool id that stands in a path."""
    if not POOL_ID.fullmatch(value):
        raise InvalidInput(errors={"pool_id": [POOL_ID_RULE]})
    return value


def check_tx_hash(value: str) -> str:
    """Validate a transaction hash that stands in a path; lower case, as nodes write it."""
    if not TX_HASH.fullmatch(value):
        raise InvalidInput(errors={"tx_hash": ["Must be 0x and 64 hex digits."]})
    return value.lower()


def check_address(value: str) -> str:
    """Validate an address that stands in a path, whatever its letters are."""
    if not ADDRESS.fullmatch(value):
        raise InvalidInput(errors={"address": ["Must be 0x and 40 hex digits."]})
    return value


class WholeField(ma.fields.Integer):
    """A whole number in a query: digits, where Python would also read ``1_0``, `` 10 `` and other scripts' digits."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII):
            raise self.make_error("invalid", input=value)
        return int(value)


class TimeField(ma.fields.Field[datetime]):
    """RFC 3339 in and out."""

    @property
    def openapi(self) -> OpenApi:
        return {"type": nullable("string", self), "format": "date-time"}

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return format_time(value)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        try:
            return parse_time(value.replace(" ", "+"))
        except (ValueError, AttributeError) as error:
            raise ma.ValidationError("Give a time with a zone, such as 2026-01-31T12:00:00Z.") from error


class BodySchema(PlainSchema):
    """Bodies: unknown fields are refused, so that a misspelt optional field is not silently ignored."""

    class Meta:
        unknown = ma.RAISE


class QuerySchema(PlainSchema):
    """Queries: unknown parameters are refused as unknown fields of a body are; `apps.common.api` sees to it."""

    class Meta:
        unknown = ma.RAISE


def cursor_field(regex: re.Pattern[str], **options: Any) -> ma.fields.String:
    """``?after=``: a value that an answer may have given, and no other."""
    return ma.fields.String(**{"load_default": None, **options}, validate=Matches(regex, NOT_A_CURSOR))


def limit_field(**options: Any) -> ma.fields.Integer:
    """``?limit=``: how many items a page has at most."""
    return WholeField(**{"load_default": DEFAULT_LIMIT, **options}, validate=ma.validate.Range(1, MAX_LIMIT))


def cut(items: Sequence[T], limit: int, cursor: Callable[[T], str]) -> tuple[list[T], str | None]:
    """The items of a page and the cursor of the next one, None at the end. Fetch ``limit + 1`` rows and give them all
    here; the surplus one only says that there is more."""
    shown = list(items[:limit])
    return shown, cursor(shown[-1]) if len(items) > limit else None


def integer_cursor(after: str | None) -> int:
    """Read a cursor that is a number; 0 where there is none."""
    if after is None:
        return 0
    if not NUMBER.fullmatch(after):
        raise InvalidInput(errors={"after": [NOT_A_CURSOR]})
    return int(after)
