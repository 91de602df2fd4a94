"""User lanes: one money step per (pool, user) at a time, batch members included.

A pair of calls (rewards and ledger) is not atomic; the lane keeps a second step of the same user from seeing its
middle.
Safety does not rest on lanes, every effect has its own message_id; they keep honest refusals from being caused by
haste.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import delete, func, or_
from sqlalchemy.dialects.postgresql import insert

from apps.common.database import Sessions, transaction
from apps.common.wire import new_id
from apps.pool.flows.leases import seconds
from apps.pool.models import UserLane


class LaneBusy(Exception):
    """Another money step of one of these users is running; look again in a moment."""


@contextmanager
def user_lanes(
    sessions: Sessions, pool_id: str, user_ids: Iterable[str], lease_sec: float
) -> Iterator[Callable[[], None]]:
    """Hold the lanes of all users for the block, or raise `LaneBusy` holding none.

    The block gets a function that holds them for another `lease_sec`, for a step of many calls.
    """
    users = sorted(set(user_ids))
    if not users:
        yield lambda: None
        return
    holder = new_id()
    _take(sessions, pool_id, users, holder, lease_sec)
    try:
        yield lambda: _take(sessions, pool_id, users, holder, lease_sec)
    finally:
        _release(sessions, pool_id, holder, users)


def _take(sessions: Sessions, pool_id: str, users: list[str], holder: str, lease_sec: float) -> None:
    statement = insert(UserLane)
    statement = statement.on_conflict_do_update(
        index_elements=["pool_id", "user_id"],
        set_={"holder": statement.excluded.holder, "held_until": statement.excluded.held_until},
        where=or_(UserLane.held_until < func.now(), UserLane.holder == holder),
    )
    rows = [
        {"pool_id": pool_id, "user_id": user, "holder": holder, "held_until": func.now() + seconds(lease_sec)}
        for user in users
    ]
    with transaction(sessions) as session:
        taken = 0
        for start in range(0, len(rows), 1000):
            found = session.execute(statement.values(rows[start : start + 1000]).returning(UserLane.user_id))
            taken += len(found.all())
        if taken < len(users):
            raise LaneBusy  # rolls back: none is held


def _release(sessions: Sessions, pool_id: str, holder: str, users: list[str]) -> None:
    with transaction(sessions) as session:
        session.execute(
            delete(UserLane).where(UserLane.pool_id == pool_id, UserLane.user_id.in_(users), UserLane.holder == holder)
        )
