"""Shapes on the wire: a frozen dataclass each, and the marshmallow schema that is made from it.

A service parses and answers with a shape, its client reads the same one, and OpenAPI shows it: a field is written once.
An amount is `int` wei wherever Python holds it; the digits of the wire exist only at the edge, in `load` and `dump`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, TypeVar, cast

import marshmallow as ma
import marshmallow_dataclass

from apps.common import wire
from apps.common.schemas import PlainSchema
from apps.common.wei import SignedWeiField, WeiField

T = TypeVar("T")


class AnswerWei(WeiField):
    """An amount in an answer, which may well be nothing."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"minimum": 0, **kwargs})


class DigitsField(ma.fields.Field[int]):
    """A whole number of any size, such as one scaled by 10^36: digits outside, ``int`` inside."""

    @property
    def openapi(self) -> wire.OpenApi:
        return {"type": wire.nullable("string", self), "pattern": "^-?[0-9]+$"}

    def _serialize(self, value: int | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else str(value)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if not isinstance(value, str):
            raise ma.ValidationError("Not a whole number as a decimal string.")
        try:
            return int(value)
        except ValueError as error:
            raise ma.ValidationError("Not a whole number as a decimal string.") from error


class StrictInteger(ma.fields.Integer):
    """A JSON number that is whole; no digits in a string, no 1.0."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"strict": True, **kwargs})


class StrictBoolean(ma.fields.Boolean):
    """JSON's true or false; no 1 or 0, which Python takes for them."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class ShapeListField(ma.fields.List[Any]):
    """A list of one shape, thousands as a rule: each item is read by its fields alone, and where one of them is not plainly
    right, the list is read again by marshmallow, which says what is wrong. That is two thirds of the time of a schema's whole
    way for each item."""

    def __init__(self, shape: type[Any], **kwargs: Any) -> None:
        self._shape = shape
        schema = schema_of(shape, wire.BodySchema)
        self._schema = cast(PlainSchema, schema())
        super().__init__(ma.fields.Nested(schema), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        found = []
        read_fields = self._schema.reader()
        for item in value if isinstance(value, list) else [None]:
            values = read_fields(item) if isinstance(item, dict) else None
            if values is None:
                return super()._deserialize(value, attr, data, **kwargs)
            found.append(self._shape(**values))
        return found


# Amounts of bodies are at least 1 wei unless the field says otherwise; amounts of answers may be 0.
Wei = Annotated[int, AnswerWei]
PositiveWei = Annotated[int, WeiField]
SignedWei = Annotated[int, SignedWeiField]
Digits = Annotated[int, DigitsField]
Whole = Annotated[int, StrictInteger]
Time = Annotated[datetime, wire.TimeField]


def given(field: Callable[..., ma.fields.Field[Any]], **options: Any) -> Any:
    """A dataclass field whose wire form is the marshmallow field that `field` makes: for bodies and queries, whose
    values are checked. Options are the field's; with ``load_default`` the dataclass field has that default too."""
    made = field(**options)
    metadata = {"marshmallow_field": made}
    if "load_default" in options:
        return dataclasses.field(default=options["load_default"], metadata=metadata)
    return dataclasses.field(metadata=metadata)


def several(shape: type[Any], most: int) -> Any:
    """A dataclass field of a body: a list of 1 to `most` of a shape, each refusing unknown fields."""
    return given(ShapeListField, shape=shape, required=True, validate=ma.validate.Length(1, most))


def described(text: str, *, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A dataclass field of an answer, with a description for OpenAPI, and `more` that OpenAPI knows, such as ``enum``. One
    with a `default` may be missing, as in the answer of a service of an earlier release."""
    return dataclasses.field(default=default, metadata={"metadata": {"description": text, **more}})


def schema_of(shape: type[Any], base: type[ma.Schema] | None = None) -> type[ma.Schema]:
    """The marshmallow schema of a shape. With `BodySchema` or `QuerySchema` as `base` it refuses unknown fields; without
    one it leaves them out, as a newer service may say more than its caller knows."""
    key = (shape, base or _Lenient)
    if key not in _SCHEMAS:
        _SCHEMAS[key] = marshmallow_dataclass.class_schema(shape, base_schema=base or _Lenient)
    return _SCHEMAS[key]


def load(shape: type[T], data: Any) -> T:
    """Read an answer; raises marshmallow's `ValidationError` where it has not this shape."""
    found: T = _instance(shape).load(data)
    return found


def dump(value: Any) -> dict[str, Any]:  # JSON: text, numbers, lists and objects, as the shape says
    """The JSON of a shape."""
    made: dict[str, Any] = _instance(type(value)).dump(value)
    return made


class _Lenient(PlainSchema):
    class Meta:
        unknown = ma.EXCLUDE


_SCHEMAS: dict[tuple[type[Any], type[ma.Schema]], type[ma.Schema]] = {}
_INSTANCES: dict[type[Any], ma.Schema] = {}


def _instance(shape: type[Any]) -> ma.Schema:
    if shape not in _INSTANCES:
        _INSTANCES[shape] = schema_of(shape)()
    return _INSTANCES[shape]
