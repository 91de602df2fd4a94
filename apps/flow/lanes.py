"""Lanes: within a scope, one step at a time for each name.

Two calls that belong together are not atomic; the lane keeps a second step of the same name from seeing their middle.
Safety does not rest on lanes, each effect has a name of its own; they keep a refusal from being caused by haste.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Text, delete, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert

from apps.common.database import Sessions, one_of, text_array, transaction
from apps.common.wire import new_id
from apps.flow.row import LaneMixin, seconds


class LaneBusy(Exception):
    """Another step runs in one of these lanes; look again in a moment."""


@contextmanager
def lanes(
    sessions: Sessions, model: type[LaneMixin], scope: str, names: Iterable[str], lease_sec: float
) -> Iterator[Callable[[], None]]:
    """Hold the lanes of all names for the block, or raise `LaneBusy` holding none.

    The block gets a function that holds them for another `lease_sec`, for a step of many calls.
    """
    wanted = sorted(set(names))
    if not wanted:
        yield lambda: None
        return
    holder = new_id()
    _take(sessions, model, scope, wanted, holder, lease_sec)
    try:
        yield lambda: _take(sessions, model, scope, wanted, holder, lease_sec)
    finally:
        with transaction(sessions) as session:
            session.execute(
                delete(model).where(model.scope == scope, one_of(model.name, wanted), model.holder == holder),
                execution_options={"synchronize_session": False},
            )


def _take(
    sessions: Sessions, model: type[LaneMixin], scope: str, names: list[str], holder: str, lease_sec: float
) -> None:
    # The names go over as one array: as rows of VALUES ten thousand of them took seconds to be put together.
    named = func.unnest(text_array(names)).column_valued("name")
    until = func.now() + seconds(lease_sec)
    statement = insert(model).from_select(
        [model.scope, model.name, model.holder, model.held_until],
        select(literal(scope, Text), named, literal(holder, Text), until),
    )
    statement = statement.on_conflict_do_update(
        constraint=model.__table__.primary_key,  # type: ignore[attr-defined]
        set_={"holder": statement.excluded.holder, "held_until": statement.excluded.held_until},
        where=or_(model.held_until < func.now(), model.holder == holder),
    )
    with transaction(sessions) as session:
        taken = session.execute(statement.returning(model.holder)).all()
        if len(taken) < len(names):
            raise LaneBusy  # rolls back: none is held
