"""Columns of many rows as the server's own text for arrays, which it reads several times faster than JSON or a list of
constants."""

from collections.abc import Iterable, Sequence
from typing import Any


def array(values: Iterable[str | int | None]) -> str:
    """An array's text; each word is quoted, so that any text is itself and no word is NULL."""
    return "{" + ",".join(map(_element, values)) + "}"


def arrays(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """The columns of rows, by name. There is at least one row."""
    return {name: array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
