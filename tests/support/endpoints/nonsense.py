"""Bodies that are nearly right: one place of a good body is taken away, replaced or added to, or the text itself is broken."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from tests.support.endpoints.call import Json

JUNK: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**53 + 1, 2**70, "", " ", ".", "..", "0", "-1", "+1", "1.0", "1e3", "0x", "٣", "max",
    "NaN", "9" * 79, str(2**256), "null", "ü" * 300, "a\nb", "a/b", "@custody", "\ud800", "\x00", "'; DROP TABLE movements;--",
    [], {}, [[]], [None], {"a": 1}, ["1"] * 3, {"amount_wei": "1"}, "0x" + "0" * 40, "2026-02-30T00:00:00Z",
]  # fmt: skip
BROKEN = [
    b"",
    b"{",
    b"[]",
    b"1",
    b'"x"',
    b"null",
    b'{"a": 1, "a": 2}',
    b'{"a": NaN}',
    b"\xff",
    b'{"a": 1}}',
    b'{"a":' * 40,
]


def broken_text(body: Json, draw: random.Random) -> bytes:
    """No JSON object: cut, doubled or something else."""
    text = json.dumps(body).encode()
    return draw.choice([*BROKEN[1:], text[: draw.randrange(1, len(text))], text + text])


def mutated(body: Json, draw: random.Random) -> Json:
    """The body with one to three faults, some of which may be none."""
    made = copy.deepcopy(body)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(made))
        if not places or draw.random() < 0.1:
            made[draw.choice(["x", "amount", "Message_id", "id", "user"])] = copy.deepcopy(draw.choice(JUNK))
            continue
        holder, key = draw.choice(places)
        if draw.random() < 0.25:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw.choice(JUNK))
    return made


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
