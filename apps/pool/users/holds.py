"""Holds: ops keep a user from asking for something, and what the user has queued from going on.

A hold that has been answered stops every request that is made afterwards: `open_request` looks in the statement that would
store it. What waits in the queue stays there until the hold is released; what is in a batch already goes its way, since
others share its transaction.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from apps.clients.shapes import users as shapes
from apps.common.database import Sessions, transaction
from apps.common.errors import NotFound
from apps.common.idempotency import differing_fields, insert_once, raise_reused
from apps.common.wire import cut, new_id
from apps.pool.errors import HoldReleased
from apps.pool.users.models import UserHold, UserHoldRelease


def held_users(pool_id: str, action: str) -> Select[str]:
    """The users of a pool who are kept from an action now."""
    return select(UserHold.user_id).where(
        UserHold.pool_id == pool_id, UserHold.actions.overlap([shapes.ALL, action]), _stands()
    )


def held_actions(session: Session, pool_id: str, user_ids: Iterable[str]) -> dict[str, list[str]]:
    """What each of these users is kept from now; a user of whom nothing stands is left out."""
    action = func.unnest(UserHold.actions).label("action")
    wanted = select(UserHold.user_id, action).where(
        UserHold.pool_id == pool_id, UserHold.user_id.in_(list(user_ids)), _stands()
    )
    found: dict[str, set[str]] = {}
    for user_id, held in session.execute(wanted):
        found.setdefault(user_id, set()).add(held)
    return {user_id: sorted(held) for user_id, held in found.items()}


class Holds:
    """Owns the transactions of the endpoints of holds."""

    def __init__(self, sessions: Sessions, default_pool_id: str) -> None:
        self._sessions = sessions
        self._default_pool_id = default_pool_id

    def place(self, user_id: str, wanted: shapes.NewHold) -> tuple[shapes.UserHold, bool]:
        """Keep a user from actions; returns the hold and whether it is a replay. Raises `MessageIdReused`."""
        actions = sorted(set(wanted.actions or [shapes.ALL]))
        pool_id = wanted.pool_id or self._default_pool_id
        canonical = {
            "pool_id": pool_id,
            "user_id": user_id,
            "actions": ",".join(actions),
            "by": wanted.by,
            "why": wanted.why,
        }
        values = {"pool_id": pool_id, "user_id": user_id, "actions": actions, "by": wanted.by, "why": wanted.why}
        with transaction(self._sessions) as session:
            row = insert_once(session, UserHold, id=new_id(), message_id=wanted.message_id, body=canonical, **values)
            if row is not None:
                return _shown(row, None), False
            return self._replay(session, wanted.message_id, canonical), True

    def release(self, hold_id: str, said: shapes.HoldRelease) -> shapes.UserHold:
        """End a hold; the first to say so is kept. Raises `NotFound`, and `HoldReleased` where another has ended it."""
        with transaction(self._sessions) as session:
            row = session.scalars(select(UserHold).where(UserHold.id == hold_id).with_for_update()).one_or_none()
            if row is None:
                raise NotFound("There is no hold with this id.")
            known = session.get(UserHoldRelease, hold_id)
            if known is not None and (known.by, known.why) != (said.by, said.why):
                raise HoldReleased(f"{known.by} has released it: {known.why}")
            if known is None:
                known = UserHoldRelease(hold_id=hold_id, by=said.by, why=said.why)
                session.add(known)
                session.flush()
                session.refresh(known)
            return _shown(row, known)

    def list(self, query: shapes.HoldsQuery) -> shapes.UserHoldPage:
        """Holds, newest first."""
        wanted = (
            select(UserHold, UserHoldRelease)
            .outerjoin(UserHoldRelease, UserHoldRelease.hold_id == UserHold.id)
            .where(UserHold.pool_id == (query.pool_id or self._default_pool_id))
            .order_by(UserHold.id.desc())
            .limit(query.limit + 1)
        )
        if query.user_id is not None:
            wanted = wanted.where(UserHold.user_id == query.user_id)
        if query.standing:
            wanted = wanted.where(UserHoldRelease.hold_id.is_(None))
        if query.after is not None:
            wanted = wanted.where(UserHold.id < query.after)
        with transaction(self._sessions) as session:
            items = [_shown(hold, release) for hold, release in session.execute(wanted)]
        return shapes.UserHoldPage(*cut(items, query.limit, lambda item: item.id))

    def _replay(self, session: Session, message_id: str, canonical: Mapping[str, str]) -> shapes.UserHold:
        row = session.scalars(select(UserHold).where(UserHold.message_id == message_id)).one()
        fields = differing_fields(canonical, row.body)
        if fields:
            raise_reused(fields)
        return _shown(row, session.get(UserHoldRelease, row.id))


def _stands() -> ColumnElement[bool]:
    return ~select(UserHoldRelease.hold_id).where(UserHoldRelease.hold_id == UserHold.id).exists()


def _shown(row: UserHold, release: UserHoldRelease | None) -> shapes.UserHold:
    return shapes.UserHold(
        id=row.id,
        message_id=row.message_id,
        pool_id=row.pool_id,
        user_id=row.user_id,
        actions=list(row.actions),
        by=row.by,
        why=row.why,
        created_at=row.created_at,
        released_by=None if release is None else release.by,
        released_why=None if release is None else release.why,
        released_at=None if release is None else release.created_at,
    )
