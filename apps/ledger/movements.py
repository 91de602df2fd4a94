"""Reading movements: lists whose cursors skip nothing, exports, and the sums of a pool.

Ids are drawn in one order and committed in another. A page ends only at an id below which everything is decided; if a
posting is still under way there, the reader waits for it. So a cursor, once given, never passes a movement that is
committed later, and pages put together are the export.
"""

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.errors import NotFound
from apps.common.idempotency import dumps
from apps.common.wei import exact_int
from apps.common.wire import MESSAGE_ID, integer_cursor, page, time_text
from apps.ledger.kinds import BUCKETS, LOSSES, SYSTEM_ACCOUNTS
from apps.ledger.models import Balance, Movement, SystemCheckpoint

EXPORT_PAGE = 5_000
FIELDS = ("id", "message_id", "kind", "pool_id", "user_id", "amount_wei", "reference", "created_at")
_COLUMNS = tuple(getattr(Movement, name) for name in FIELDS)


def render(row: Any) -> dict[str, Any]:
    """A movement as it is answered; of what never changes, so the same bytes at every replay."""
    return {
        "id": row.id,
        "message_id": row.message_id,
        "kind": row.kind,
        "pool_id": row.pool_id,
        "user_id": row.user_id,
        "amount_wei": str(row.amount_wei),
        "reference": row.reference,
        "created_at": time_text(row.created_at),
    }


def find_movement(sessions: Sessions, message_id: str) -> dict[str, Any]:
    """The movement of a message_id; raises `NotFound`."""
    row = None
    if MESSAGE_ID.fullmatch(message_id):
        with transaction(sessions) as session:
            row = session.execute(select(*_COLUMNS).where(Movement.message_id == message_id)).one_or_none()
    if row is None:
        raise NotFound("There is no movement with this message_id.")
    return render(row)


def list_movements(
    sessions: Sessions,
    *,
    pool_id: str,
    user_id: str | None,
    kind: str | None,
    created_after: datetime | None,
    limit: int,
    after: str | None,
) -> dict[str, Any]:
    """Movements in the order of their ids."""
    query = _query(pool_id, user_id, kind).where(Movement.id > integer_cursor(after)).limit(limit + 1)
    if created_after is not None:
        query = query.where(Movement.created_at > created_after)
    with transaction(sessions) as session:
        horizon = session.execute(text("SELECT newest, settled FROM movement_horizon()")).one()
        query = query.where(Movement.id <= horizon.newest)
        rows = session.execute(query).all()
        shown = rows[:limit]
        if shown and shown[-1].id > horizon.settled:
            _settle(session, shown[-1].id)
            rows = session.execute(query).all()
    return page([render(row) for row in rows], limit, lambda item: str(item["id"]))


def export_movements(
    sessions: Sessions, *, pool_id: str, user_id: str | None, kind: str | None, layout: str
) -> Iterator[str]:
    """All movements up to now as lines of JSON (``ndjson``) or ``csv``; each line is a movement, in the order of ids."""
    newest = settled_newest(sessions)
    query = _query(pool_id, user_id, kind).limit(EXPORT_PAGE)
    after = 0
    if layout == "csv":
        yield _csv_line(FIELDS)
    while True:
        with transaction(sessions) as session:
            rows = session.execute(query.where(Movement.id > after, Movement.id <= newest)).all()
        if not rows:
            return
        rendered = [render(row) for row in rows]
        yield "".join(_csv_line(tuple(item.values())) if layout == "csv" else f"{dumps(item)}\n" for item in rendered)
        after = rows[-1].id


def settled_newest(sessions: Sessions) -> int:
    """The newest id there is, once everything up to it is decided."""
    with transaction(sessions) as session:
        newest: int = session.execute(text("SELECT newest FROM movement_horizon()")).scalar_one()
        _settle(session, newest)
    return newest


def totals(sessions: Sessions, pool_id: str) -> dict[str, Any]:
    """Sums over the pool: user buckets, system accounts, and all together, which is zero."""
    with transaction(sessions) as session:
        one_snapshot(session)
        sums = account_sums(session, pool_id)
        last = session.scalar(select(func.max(Movement.id)).where(Movement.pool_id == pool_id))
    return {
        "pool_id": pool_id,
        **{f"{name}_wei": str(sums[name]) for name in BUCKETS},
        "system": {
            name: str(sums.get(name, 0)) for name in (*SYSTEM_ACCOUNTS, *([LOSSES] if sums.get(LOSSES) else []))
        },
        "sum_wei": str(sum(sums.values())),
        "last_movement_id": last,
    }


def one_snapshot(session: Session) -> None:
    """Let all statements of this transaction see the same moment; the first statement of it."""
    session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def account_sums(session: Session, pool_id: str) -> dict[str, int]:
    """Signed wei of every account of a pool: user buckets from the balance rows, system accounts from movements."""
    row = session.execute(
        select(*(func.coalesce(func.sum(getattr(Balance, f"{name}_wei")), 0).label(name) for name in BUCKETS)).where(
            Balance.pool_id == pool_id
        )
    ).one()
    return {**{name: exact_int(getattr(row, name)) for name in BUCKETS}, **_system_sums(session, pool_id)}


def system_sums_since(session: Session, pool_id: str, after_id: int) -> dict[str, int]:
    """Signed wei that came to each system account with the movements after an id."""
    sums: dict[str, int] = {}
    for side, sign in ((Movement.target, 1), (Movement.source, -1)):
        rows = session.execute(
            select(side, func.sum(Movement.amount_wei))
            .where(Movement.pool_id == pool_id, Movement.id > after_id, side.startswith("@"))
            .group_by(side)
        )
        for account, total in rows:
            sums[account] = sums.get(account, 0) + sign * exact_int(total)
    return sums


def _system_sums(session: Session, pool_id: str) -> dict[str, int]:
    through = session.scalar(select(func.max(SystemCheckpoint.through_id)).where(SystemCheckpoint.pool_id == pool_id))
    known = session.execute(
        select(SystemCheckpoint.account, SystemCheckpoint.sum_wei).where(
            SystemCheckpoint.pool_id == pool_id, SystemCheckpoint.through_id == through
        )
    )
    sums = {row.account: row.sum_wei for row in known}
    for account, total in system_sums_since(session, pool_id, through or 0).items():
        sums[account] = sums.get(account, 0) + total
    return dict(sorted(sums.items()))


def _query(pool_id: str, user_id: str | None, kind: str | None) -> Select[Any]:
    query = select(*_COLUMNS).where(Movement.pool_id == pool_id)
    if user_id is not None:
        query = query.where(Movement.user_id == user_id)
    if kind is not None:
        query = query.where(Movement.kind == kind)
    return query.order_by(Movement.id)


def _settle(session: Session, upto: int) -> None:
    session.execute(text("SELECT settle_movements(:upto)"), {"upto": upto})


def _csv_line(values: tuple[Any, ...]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
