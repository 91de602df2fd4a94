"""A user's statement: the buckets at both ends of a span, and every movement in between with the buckets after it."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.clients.shapes.ledger import Balance, Buckets, Statement, StatementLine, StatementQuery
from apps.common.spans import span_of
from apps.common.wei import exact_int
from apps.common.wire import cut, integer_cursor
from apps.ledger import balances
from apps.ledger.kinds import BUCKETS
from apps.ledger.models import Movement

_AFTER = tuple(f"{name}_wei" for name in BUCKETS)
_COLUMNS = (
    Movement.id,
    Movement.message_id,
    Movement.kind,
    Movement.amount_wei,
    Movement.reference,
    Movement.source,
    Movement.target,
    Movement.created_at,
    *(getattr(Movement, name) for name in _AFTER),
)


def statement(session: Session, pool_id: str, user_id: str, query: StatementQuery) -> Statement:
    """One page of a statement; raises `InvalidInput` where the span is empty or too long.

    Both ends are settled before a line is read, so that every page of the same span tells of the same movements.
    """
    start, end = span_of(query, session)
    closing = balances.as_of(session, pool_id, user_id, end)
    opening = balances.as_of(session, pool_id, user_id, start)
    lines = _lines(session, pool_id, user_id, start, end, integer_cursor(query.after), query.limit + 1)
    shown, following = cut(lines, query.limit, lambda line: str(line.id))
    return Statement(
        pool_id=pool_id,
        user_id=user_id,
        start=start,
        end=end,
        opening=_buckets(opening),
        closing=_buckets(closing),
        lines=shown,
        next=following,
    )


def _lines(
    session: Session, pool_id: str, user_id: str, start: datetime, end: datetime, after: int, limit: int
) -> list[StatementLine]:
    rows = session.execute(
        select(*_COLUMNS)
        .where(Movement.pool_id == pool_id, Movement.user_id == user_id, Movement.id > after)
        .where(Movement.created_at > start, Movement.created_at <= end)
        .order_by(Movement.id)
        .limit(limit)
    )
    return [_line(row) for row in rows]


def _line(row: Any) -> StatementLine:
    return StatementLine(
        id=row.id,
        message_id=row.message_id,
        kind=row.kind,
        amount_wei=exact_int(row.amount_wei),
        reference=row.reference,
        source=row.source,
        target=row.target,
        after=Buckets(*(exact_int(getattr(row, name)) for name in _AFTER)),
        created_at=row.created_at,
    )


def _buckets(found: Balance) -> Buckets:
    return Buckets(*(getattr(found, name) for name in _AFTER))
