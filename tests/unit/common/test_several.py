"""The list of a large body: read by its fields where all is right, and by marshmallow's own schema where anything is not."""

from typing import Any

import marshmallow as ma
import pytest

from apps.clients.shapes.ledger import NewMovement, NewMovementBatch
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema

RIGHT = {"message_id": "m:1", "kind": "deposit", "user_id": "ann", "amount_wei": "5"}
WRONG: dict[str, Any] = {
    "missing": {name: value for name, value in RIGHT.items() if name != "kind"},
    "another kind": {**RIGHT, "kind": "gift"},
    "no name": {**RIGHT, "message_id": ".."},
    "a null that none may be": {**RIGHT, "amount_wei": None},
    "a number": {**RIGHT, "amount_wei": 5},
    "nothing": {**RIGHT, "amount_wei": "0"},
    "a field too many": {**RIGHT, "bonus": 1},
    "too long": {**RIGHT, "reference": "x" * 201},
    "no object": "m:1",
    "null": None,
}


def read(movements: Any) -> Any:
    return schema_of(NewMovementBatch, BodySchema)().load({"movements": movements})


def test_several__all_right__as_the_schema_reads_each() -> None:
    given: list[dict[str, Any]] = [
        RIGHT,
        {**RIGHT, "pool_id": None, "reference": "r"},
        {**RIGHT, "pool_id": "other", "user_id": None},
    ]
    schema = schema_of(NewMovement, BodySchema)()
    expected: Any = [schema.load(item) for item in given]
    assert read(given) == NewMovementBatch(expected)


def test_several__fields_that_repeat_and_change_and_come_back__each_item_has_its_own() -> None:
    amounts = ["5", "5", "6", "6", "5", "7"]
    references = ["a", "a", None, None, "a", "b"]
    given = [
        {**RIGHT, "amount_wei": amount, "reference": reference}
        for amount, reference in zip(amounts, references, strict=True)
    ]
    found = [(item.amount_wei, item.reference) for item in read([*given, RIGHT]).movements]
    assert found == [*zip(map(int, amounts), references, strict=True), (5, None)]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_several__one_wrong__refused_in_the_schemas_own_words(wrong: Any) -> None:
    nested = ma.Schema.from_dict({"movements": ma.fields.List(ma.fields.Nested(schema_of(NewMovement, BodySchema)))})()
    with pytest.raises(ma.ValidationError) as expected:
        nested.load({"movements": [RIGHT, wrong, RIGHT]})
    with pytest.raises(ma.ValidationError) as found:
        read([RIGHT, wrong, RIGHT])
    assert found.value.messages == expected.value.messages


@pytest.mark.parametrize("given", [[], "movements", {"0": RIGHT}, 5, None, [RIGHT] * 10_001])
def test_several__no_list_or_of_another_length__refused(given: Any) -> None:
    with pytest.raises(ma.ValidationError):
        read(given)
