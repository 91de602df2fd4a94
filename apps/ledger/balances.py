"""Reading balances, now and as of a time.

A movement's `created_at` is drawn under its user's balance row lock and grows with every movement of the user, so a
user's history by time is the history by commit. What is asked about a time is answered once nothing of that time can
still be under way; the same question later gets the same answer.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, literal_column, select, text
from sqlalchemy.orm import Session

from apps.clients.shapes.ledger import Balance as BalanceShape
from apps.common.wei import exact_int
from apps.ledger.kinds import BUCKETS
from apps.ledger.models import Balance, Movement

LAST_CHARACTER = "\U0010ffff"
_AFTER = tuple(f"{name}_wei" for name in BUCKETS)


def now(session: Session, pool_id: str, user_id: str) -> BalanceShape:
    """A user's balance now; zeros for an unknown user."""
    row = _find(session, pool_id, user_id)
    return _shape(pool_id, user_id, row, row.last_movement_id, row.as_of)


def as_of(session: Session, pool_id: str, user_id: str, at: datetime) -> BalanceShape:
    """A user's balance as of a time, or of now where that is earlier. May wait for postings that are under way."""
    row = _find(session, pool_id, user_id)
    moment = min(at, row.now)
    if row.last_movement_id is None or row.busy:
        _wait_for_postings(session, pool_id, user_id)
    then = session.execute(
        select(Movement.id, *(getattr(Movement, name) for name in _AFTER))
        .where(Movement.pool_id == pool_id, Movement.user_id == user_id, Movement.created_at <= moment)
        .order_by(Movement.id.desc())
        .limit(1)
    ).one_or_none()
    return _shape(pool_id, user_id, then, then.id if then else None, moment)


def by_user(session: Session, pool_id: str, after: str, limit: int, prefix: str | None = None) -> list[BalanceShape]:
    """Balances of the pool's users whose ids follow `after` (and begin with `prefix`), in their order."""
    # By the bytes of their ids, as the index has them: all that begin with a text stand between it and the text with a
    # character after it that comes behind every other.
    first, last = prefix or "", f"{prefix or ''}{LAST_CHARACTER}"
    rows = session.execute(
        _LIST, {"pool_id": pool_id, "after": after, "first": first, "last": last, "limit": limit}
    ).all()
    return [_shape(pool_id, row.user_id, row, row.last_movement_id, row.as_of) for row in rows]


# `xmax` is not zero while another transaction changes or locks the row: what it may commit is not seen yet, so the
# answer is true only as of the row's last movement. `now` is taken before the row is read; a posting that locks the row
# afterwards draws a later time.
_ROW = """
    b.available_wei, b.reserved_wei, b.staked_wei, b.unstaking_wei, b.last_movement_id, b.xmax <> '0' AS busy,
    statement_timestamp() AS now,
    CASE WHEN b.xmax <> '0' THEN b.updated_at ELSE greatest(statement_timestamp(), b.updated_at) END AS as_of
"""
_FIND = text(
    f"SELECT {_ROW} FROM (SELECT) one LEFT JOIN balances b ON b.pool_id = :pool_id AND b.user_id = :user_id"  # noqa: S608
)
_LIST = text(
    f"SELECT b.user_id, {_ROW} FROM balances b WHERE b.pool_id = :pool_id AND b.user_id > :after"  # noqa: S608
    " AND b.user_id >= :first AND b.user_id < :last"
    " ORDER BY b.user_id LIMIT :limit"
)


def _find(session: Session, pool_id: str, user_id: str) -> Row[Any]:
    return session.execute(_FIND, {"pool_id": pool_id, "user_id": user_id}).one()


def _wait_for_postings(session: Session, pool_id: str, user_id: str) -> None:
    """Return when every posting of the user that had begun is visible to the next statement."""
    locked: Row[Any] | None = session.execute(
        select(literal_column("1"))
        .select_from(Balance)
        .where(Balance.pool_id == pool_id, Balance.user_id == user_id)
        .with_for_update(read=True)
    ).one_or_none()
    if locked is None:
        # There is no row to wait for: the first movement may be under way, and its transaction holds this lock shared.
        session.execute(text("SELECT settle_new_balances()"))


def _shape(pool_id: str, user_id: str, row: Any | None, last: int | None, as_of: datetime) -> BalanceShape:
    wei = {name: exact_int(getattr(row, name, None) or 0) for name in _AFTER}
    return BalanceShape(
        pool_id,
        user_id,
        available_wei=wei["available_wei"],
        reserved_wei=wei["reserved_wei"],
        staked_wei=wei["staked_wei"],
        unstaking_wei=wei["unstaking_wei"],
        last_movement_id=last,
        as_of=as_of,
    )
