"""What a transaction changes, told by SQLAlchemy's own bookkeeping: each mapped row's fields before and after."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ClauseElement, Table, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import ORMExecuteState, Session

from apps.common.bodies import JsonObject
from apps.common.idempotency import MessageKeyMixin
from apps.common.logging import without_secrets
from apps.common.wire import format_time

# A change of thousands of rows names that many of them, and says how many more there were.
MAX_ROWS = 100

Fields = dict[str, object]

# Holds answers to be repeated, which are no change of anything.
_ANSWERS = MessageKeyMixin.__tablename__
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class Changes:
    """Fields by table and key. Statements in plain SQL are not seen."""

    def __init__(self) -> None:
        self._before: dict[str, Fields] = {}
        self._after: dict[str, Fields] = {}
        self._more = 0

    def columns(self) -> Mapping[str, JsonObject | None]:
        """As the audit log keeps them."""
        after = {**self._after, **({"more": {"rows": self._more}} if self._more else {})}
        return {"before": without_secrets(self._before) or None, "after": without_secrets(after) or None}

    def note_flush(self, session: Session) -> None:
        """What is about to be flushed."""
        for row in [*session.new, *(row for row in session.dirty if session.is_modified(row)), *session.deleted]:
            state = inspect(row)
            before: Fields = {}
            after: Fields = {}
            for column in state.mapper.column_attrs:
                history = state.attrs[column.key].history
                if history.deleted:
                    _put(before, column.key, history.deleted[0])
                if row in session.deleted:
                    _put(before, column.key, getattr(row, column.key))
                elif history.added:
                    _put(after, column.key, history.added[0])
            key = ":".join(str(value) for value in state.mapper.primary_key_from_instance(row))
            self._note(f"{state.mapper.class_.__tablename__} {key}", before, after)

    def note_statement(self, state: ORMExecuteState) -> None:
        """What a statement is about to insert or update; what an update meets is not asked for."""
        if not (state.is_insert or state.is_update) or state.bind_mapper is None:
            return
        table = cast(Table, state.bind_mapper.local_table)
        if table.name == _ANSWERS:
            return
        if isinstance(state.parameters, list):
            self._note(f"{table.name} *", {}, {"rows": len(state.parameters)})
            return
        values: Fields = {}
        statement = cast(ClauseElement, state.statement)
        for name, value in statement.compile(dialect=_DIALECT).params.items():
            if name in table.columns or state.is_update:
                _put(values, name, value)
        key = ":".join(str(values[column.name]) for column in table.primary_key if column.name in values)
        self._note(f"{table.name} {key or '*'}", {}, values)

    def _note(self, place: str, before: Fields, after: Fields) -> None:
        if not before and not after:
            return
        if place not in self._after and len(self._after) >= MAX_ROWS:
            self._more += 1
            return
        self._before[place] = {**before, **self._before.get(place, {})}
        self._after[place] = {**self._after.get(place, {}), **after}


def _put(fields: Fields, name: str, value: Any) -> None:
    if not isinstance(value, ClauseElement):  # what the database is to work out is not known here
        fields[name] = _json(value)


def _json(value: Any) -> object:
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, Mapping):
        return {str(name): _json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value.hex() if isinstance(value, bytes) else str(value)
