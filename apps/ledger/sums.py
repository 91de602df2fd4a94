"""Sums of accounts: user buckets from the balance rows, system accounts from movements after the last checkpoint."""

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.common.wei import exact_int
from apps.ledger.kinds import BUCKETS
from apps.ledger.models import Balance, Movement, SystemCheckpoint


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
