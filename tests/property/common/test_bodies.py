"""The reader of bodies against Python's own: the same values for what is strict JSON within bounds, a refusal for all else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.bodies import MAX_DEPTH, parse_object
from apps.common.errors import InvalidInput, InvalidJson, TooLarge

# Texts of what a reader of structure may stumble over.
texts = st.text(alphabet=st.sampled_from('[]{},:"\\/ax0\n\u00e9\U0001f600'), max_size=8) | st.text(max_size=8)
storable = texts.filter(lambda text: "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text))
numbers = st.integers(-(10**79), 10**79) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | storable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(storable, inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(storable, values, max_size=5)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(value=objects, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_body__strict_object__read_as_python_reads_it(
    value: dict[str, Any], *, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert parse_object(raw) == json.loads(raw)


@given(objects, st.integers(0, 45), st.data())
def test_body__of_any_depth__read_exactly_when_within_the_limit(inner: dict[str, Any], more: int, data: Any) -> None:
    value: Any = inner
    for _ in range(more):
        name, beside = data.draw(storable), data.draw(storable)
        value = {name: value, beside + "]": beside} if data.draw(st.booleans()) else [beside, value]
    value = {"a": value}
    raw = json.dumps(value).encode()
    if depth(value) <= MAX_DEPTH:
        assert parse_object(raw) == json.loads(raw)
    else:
        with pytest.raises(InvalidJson, match="nested deeper"):
            parse_object(raw)


@given(st.lists(st.tuples(storable, storable), min_size=1, max_size=6), st.integers(0, 5))
def test_body__a_key_twice_anywhere__refused(pairs: list[tuple[str, str]], level: int) -> None:
    members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in [*pairs, pairs[0]]]
    raw = '{"a":' * level + "{" + ",".join(members) + "}" + "}" * level
    with pytest.raises(InvalidJson, match="twice"):
        parse_object(raw.encode())


@given(st.binary(max_size=60) | st.text(alphabet='[]{},:"\\01eE+-.nulNaIfity ', max_size=60).map(str.encode))
def test_body__any_bytes__an_object_or_a_refusal(raw: bytes) -> None:
    try:
        found = parse_object(raw)
    except (InvalidJson, InvalidInput, TooLarge):
        return
    assert found == json.loads(raw)
    assert depth(found) <= MAX_DEPTH
