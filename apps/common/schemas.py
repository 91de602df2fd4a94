"""A schema that takes the short way where all is in order.

marshmallow's own way through `load` and `dump` gathers errors, hooks, partial and nested options as it goes, and costs
several times what the fields do. Here each field reads or writes its value, with its own checks, and that is all; whatever
is not in order is given to marshmallow whole, which says what is wrong with it.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import marshmallow as ma

# Key on the wire, name of the attribute, and what reads or writes the value.
_Way = list[tuple[str, str, Callable[..., Any]]]
_NOTHING = object()


class PlainSchema(ma.Schema):
    """The base of every schema of a shape (`apps.common.shapes`)."""

    def load(self, data: Any, *, many: bool | None = None, partial: Any = None, unknown: Any = None) -> Any:
        if self._plain and type(data) is dict and not many and not partial:
            values = self.read_fields(data, self.unknown if unknown is None else unknown)
            if values is not None:
                return values
        return super().load(data, many=many, partial=partial, unknown=unknown)

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:
        if not self._plain or many or not hasattr(type(obj), "__dataclass_fields__"):
            return super().dump(obj, many=many)
        return {key: write(getattr(obj, name), name, obj) for key, name, write in self._writers}

    def read_fields(self, data: dict[str, Any], unknown: str = ma.RAISE) -> dict[str, Any] | None:
        """The values of all fields, by attribute; None where something is wrong."""
        return self.reader(unknown)(data)

    def reader(self, unknown: str = ma.RAISE) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
        """`read_fields` of one object after the other. What stood in a field of the one before and stands there again is not
        read again: in lists of thousands most fields say the same in all of them."""
        readers = self._readers
        before: list[Any] = [_NOTHING] * len(readers)
        read_before: list[Any] = [None] * len(readers)

        def read_fields(data: dict[str, Any]) -> dict[str, Any] | None:
            values, known = {}, 0
            try:
                for place, (key, name, read) in enumerate(readers):
                    given = data.get(key, ma.missing)
                    known += given is not ma.missing
                    if given is before[place] or (type(given) is str and given == before[place]):
                        value = read_before[place]
                    else:
                        value = read_before[place] = read(given, key, data)
                        before[place] = given
                    if value is not ma.missing:
                        values[name] = value
            except ma.ValidationError:
                return None
            return values if known == len(data) or unknown == ma.EXCLUDE else None

        return read_fields

    @cached_property
    def _plain(self) -> bool:
        """Whether there is nothing to do but what the fields do."""
        return not (self.many or self.partial or any(self._hooks.values()))

    @cached_property
    def _readers(self) -> _Way:
        return [
            (field.data_key or name, field.attribute or name, field.deserialize)
            for name, field in self.load_fields.items()
        ]

    @cached_property
    def _writers(self) -> _Way:
        return [
            (field.data_key or name, field.attribute or name, field._serialize)
            for name, field in self.dump_fields.items()
        ]
