"""Flows read and written by statements whose text is made once: for a lone row, SQLAlchemy takes longer to put a statement
together and to read its result than the database takes to run it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Float
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.orm import class_mapper, make_transient_to_detached
from sqlalchemy.orm.instrumentation import manager_of_class
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from apps.common.database import Sessions, engine_of, run_statement_once
from apps.flow.row import FlowMixin

Row = TypeVar("Row", bound=FlowMixin)

# What the driver calls the types that a number may come in; of any other column it is not asked.
_NUMERIC, _FLOAT8 = 1700, 701
_DIALECT = psycopg2.dialect()  # type: ignore[no-untyped-call]


class Statement(NamedTuple):
    """A statement as the driver takes it, with the constants in it."""

    sql: str
    constants: Mapping[str, Any]


def compiled(statement: ClauseElement) -> Statement:
    """The text of a statement; parameters that are to be given have no value in its constants yet."""
    found = statement.compile(dialect=_DIALECT)
    return Statement(str(found), found.params)


def run(sessions: Sessions, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
    """Run a statement as a transaction of its own, in one round trip."""
    return run_statement_once(engine_of(sessions), statement.sql, {**statement.constants, **values})


def entities(model: type[Row], rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Rows with all columns of the model's table, in its order, as the model: detached, as those of a session that ended."""
    attributes, readers = _columns(model)  # type: ignore[arg-type]  # a class is hashable, whatever its metaclass says
    made = []
    for row in rows:
        entity: Row = manager_of_class(model).new_instance()
        values = [value if read is None else read(value) for value, read in zip(row, readers, strict=True)]
        vars(entity).update(zip(attributes, values, strict=True))
        make_transient_to_detached(entity)
        made.append(entity)
    return made


@cache
def _columns(model: type[FlowMixin]) -> tuple[list[str], list[Callable[[Any], Any] | None]]:
    """The attribute of each column, and what the column's type does to a value of the driver's."""
    mapper = class_mapper(model)
    columns = model.__table__.columns  # type: ignore[attr-defined]
    attributes = [mapper.get_property_by_column(column).key for column in columns]
    return attributes, [_reader(column.type) for column in columns]


def _reader(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    return kind.dialect_impl(_DIALECT).result_processor(_DIALECT, _FLOAT8 if isinstance(kind, Float) else _NUMERIC)
