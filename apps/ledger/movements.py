"""Rows of movements, and up to which id everything is decided.

Ids are drawn in one order and committed in another. A page ends only at an id below which everything is decided; if a
posting is still under way there, the reader waits for it. So a cursor, once given, never passes a movement that is
committed later, and pages put together are the export.
"""

from typing import Any

from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from apps.clients.shapes.ledger import Movement as MovementShape
from apps.common.database import Sessions, transaction
from apps.common.wei import exact_int
from apps.ledger.models import Movement

FIELDS = ("id", "message_id", "kind", "pool_id", "user_id", "amount_wei", "reference", "created_at")
COLUMNS = tuple(getattr(Movement, name) for name in FIELDS)


def shape(row: Any) -> MovementShape:
    """A movement as it is answered: made of what never changes, so the same bytes at every replay."""
    return MovementShape(
        id=row.id,
        message_id=row.message_id,
        kind=row.kind,
        pool_id=row.pool_id,
        user_id=row.user_id,
        amount_wei=exact_int(row.amount_wei),
        reference=row.reference,
        created_at=row.created_at,
    )


def select_movements(pool_id: str, user_id: str | None, kind: str | None) -> Select[Any]:
    """`FIELDS` of a pool's movements, of one user or kind where given, in the order of ids."""
    query = select(*COLUMNS).where(Movement.pool_id == pool_id)
    if user_id is not None:
        query = query.where(Movement.user_id == user_id)
    if kind is not None:
        query = query.where(Movement.kind == kind)
    return query.order_by(Movement.id)


def watermarks(session: Session) -> tuple[int, int]:
    """The newest id that was drawn, and the greatest up to which every posting has committed or rolled back."""
    row = session.execute(text("SELECT newest, settled FROM movement_horizon()")).one()
    return row.newest, row.settled


def wait_until_decided(session: Session, upto: int) -> None:
    """Return once every posting with an id up to this one has committed or rolled back."""
    session.execute(text("SELECT settle_movements(:upto)"), {"upto": upto})


def settled_newest(sessions: Sessions) -> int:
    """The newest id that was drawn, once everything up to it is decided."""
    with transaction(sessions) as session:
        newest, _ = watermarks(session)
        wait_until_decided(session, newest)
    return newest
