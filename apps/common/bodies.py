"""The one reader of bodies: a strict JSON object, or a refusal before any schema looks at it.

Python's own reader takes the last of two equal keys, NaN, a million digits, UTF-16 and halves of characters, and goes as
deep as the stack: where a library has raised the recursion limit, a hundred thousand brackets end the process. So
depth and counts are taken from the bytes, and only what is within bounds is parsed.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from flask import Request

from apps.common.errors import InvalidInput, InvalidJson, TooLarge, UnsupportedMediaType

# What its values may be is said by the schema that reads it next.
JsonObject = dict[str, Any]

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
# The largest batch there is has 10,000 items of six fields. More would cost minutes of a schema's time, in which the
# other threads get little.
MAX_CONTAINERS = 10_100
MAX_VALUES = 100_000

_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")
# 2^256 has 78 digits. Python refuses to parse some thousands, with an error that would be answered with a 500.
_LONG_NUMBER = re.compile(rb"[0-9]{81}")
_UNSTORABLE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


def read_body(request: Request) -> JsonObject:
    """The body, an empty object where there is none. Raises `InvalidJson`, `InvalidInput`, `TooLarge`,
    `UnsupportedMediaType`."""
    raw = request.get_data(cache=True)
    if not raw:
        return {}
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")
    body = parse_object(raw)
    if not request.is_json:
        raise InvalidJson("The body is JSON; say so with Content-Type: application/json.")
    return body


def parse_object(raw: bytes) -> JsonObject:
    """Parse a strict JSON object."""
    outside = _outside_strings(raw)
    structure = outside.translate(None, delete=_NOT_STRUCTURE)
    brackets = structure.replace(b",", b"")
    if len(structure) - len(brackets) > MAX_VALUES or len(brackets) > 2 * MAX_CONTAINERS:
        raise TooLarge("The body holds too many values; split the batch.")
    if _deeper_than(brackets, MAX_DEPTH):
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH}.")
    if _LONG_NUMBER.search(outside):
        raise InvalidJson("A number in the body is too long.")
    try:
        body = _DECODER.decode(raw.decode())
    except ValueError as error:
        raise InvalidJson from error
    if not isinstance(body, dict):
        raise InvalidJson
    if _UNSTORABLE.search(raw):
        _refuse_unstorable(body)
    return body


def _outside_strings(raw: bytes) -> bytes:
    """The bytes outside strings. Right for bytes that are JSON; the parser refuses all others afterwards."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(raw.split(b'"')[::2])


def _deeper_than(brackets: bytes, depth: int) -> bool:
    """Take away innermost pairs, all at once; each round is one level."""
    brackets = brackets.translate(_ALL_SQUARE)
    for _ in range(depth):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _object(pairs: Sequence[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InvalidJson(f"The key {twice[:100]!r} stands twice in one object.")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJson("A number in the body is too large.")
    return value


def _no_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant)


def _refuse_unstorable(body: JsonObject) -> None:
    """JSON can say what no text of a database can hold: a NUL, or half of a surrogate pair."""
    names = [name for name, text in _texts(body, "") if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text)]
    if names:
        raise InvalidInput(errors={name: ["Must be text without NUL and without lone surrogates."] for name in names})


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every string in a value with the name of its place; a key's own place is its object's."""
    if isinstance(value, str):
        yield name or "body", value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield name or "body", key
            yield from _texts(item, f"{name}.{key}".strip("."))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{name}.{number}".strip("."))
