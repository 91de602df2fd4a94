"""Materialized balances: one row per (pool, user), changed set-based under row locks in sorted order."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.wei import exact_int
from apps.common.wire import format_time, page
from apps.ledger.errors import InsufficientBalance
from apps.ledger.kinds import BUCKETS
from apps.ledger.models import Balance, Movement

Owner = tuple[str, str]

_ENSURE = text(
    """
    INSERT INTO balances (pool_id, user_id)
    SELECT pool_id, user_id FROM unnest(CAST(:pools AS text[]), CAST(:users AS text[])) AS o(pool_id, user_id)
    ON CONFLICT DO NOTHING
    """
)
_LOCK = text(
    """
    SELECT b.pool_id, b.user_id, b.available_wei, b.reserved_wei, b.staked_wei, b.unstaking_wei
    FROM balances b
    JOIN unnest(CAST(:pools AS text[]), CAST(:users AS text[])) AS o(pool_id, user_id) USING (pool_id, user_id)
    ORDER BY b.pool_id, b.user_id
    FOR UPDATE OF b
    """
)
_UPDATE = text(
    """
    UPDATE balances b
    SET available_wei = b.available_wei + c.available, reserved_wei = b.reserved_wei + c.reserved,
        staked_wei = b.staked_wei + c.staked, unstaking_wei = b.unstaking_wei + c.unstaking, last_movement_id =
        c.last_id
    FROM unnest(CAST(:pools AS text[]), CAST(:users AS text[]), CAST(:available AS numeric[]), CAST(:reserved AS
    numeric[]),
                CAST(:staked AS numeric[]), CAST(:unstaking AS numeric[]), CAST(:last_ids AS bigint[]))
         AS c(pool_id, user_id, available, reserved, staked, unstaking, last_id)
    WHERE b.pool_id = c.pool_id AND b.user_id = c.user_id
    """
)


def apply_changes(session: Session, changes: Mapping[Owner, Mapping[str, int]], last_ids: Mapping[Owner, int]) -> None:
    """Add signed wei to buckets of users; raises `InsufficientBalance` naming user, bucket and missing wei.

    Rows are made and locked in sorted order, so two batches over the same users wait for each other, never in a circle.
    """
    if not changes:
        return
    owners = sorted(changes)
    keys = {"pools": [pool for pool, _ in owners], "users": [user for _, user in owners]}
    session.execute(_ENSURE, keys)
    for row in session.execute(_LOCK, keys):
        change = changes[(row.pool_id, row.user_id)]
        for bucket in BUCKETS:
            left = exact_int(getattr(row, f"{bucket}_wei")) + change.get(bucket, 0)
            if left < 0:
                raise InsufficientBalance(f"User {row.user_id} lacks {-left} wei in {bucket}.")
    session.execute(
        _UPDATE,
        {
            **keys,
            **{bucket: [changes[owner].get(bucket, 0) for owner in owners] for bucket in BUCKETS},
            "last_ids": [last_ids[owner] for owner in owners],
        },
    )


def bucket_sums(session: Session, pool_id: str) -> dict[str, int]:
    """Wei of each bucket over all users of a pool."""
    row = session.execute(
        select(
            *(func.coalesce(func.sum(getattr(Balance, f"{bucket}_wei")), 0).label(bucket) for bucket in BUCKETS)
        ).where(Balance.pool_id == pool_id)
    ).one()
    return {bucket: exact_int(getattr(row, bucket)) for bucket in BUCKETS}


def read_balance(sessions: Sessions, pool_id: str, user_id: str, at: datetime | None) -> dict[str, Any]:
    """A user's balance now, or summed from the movements up to a time. An unknown user has zeros."""
    with transaction(sessions) as session:
        if at is None:
            row = session.get(Balance, (pool_id, user_id))
            now = session.scalar(select(func.clock_timestamp()))
            values = {bucket: getattr(row, f"{bucket}_wei") if row else 0 for bucket in BUCKETS}
            last = row.last_movement_id if row else None
            return _shape(pool_id, user_id, values, last, now)
        values, last = _sum_until(session, pool_id, user_id, at)
        return _shape(pool_id, user_id, values, last, at)


def list_balances(sessions: Sessions, pool_id: str, limit: int, after: str | None) -> dict[str, Any]:
    """Every user's balance, ordered by user_id."""
    query = select(Balance).where(Balance.pool_id == pool_id)
    if after is not None:
        query = query.where(Balance.user_id > after)
    now = datetime.now(UTC)
    with transaction(sessions) as session:
        rows = session.scalars(query.order_by(Balance.user_id).limit(limit + 1)).all()
    items = [
        _shape(
            pool_id,
            row.user_id,
            {bucket: getattr(row, f"{bucket}_wei") for bucket in BUCKETS},
            row.last_movement_id,
            now,
        )
        for row in rows
    ]
    return page(items, limit, lambda item: str(item["user_id"]))


def _sum_until(session: Session, pool_id: str, user_id: str, at: datetime) -> tuple[dict[str, int], int | None]:
    values = dict.fromkeys(BUCKETS, 0)
    last: int | None = None
    until = (Movement.pool_id == pool_id, Movement.user_id == user_id, Movement.created_at <= at)
    for side, sign in ((Movement.target, 1), (Movement.source, -1)):
        rows = session.execute(
            select(side, func.sum(Movement.amount_wei), func.max(Movement.id)).where(*until).group_by(side)
        )
        for account, total, newest in rows:
            last = max(last or 0, newest)
            if account in values:
                values[account] += sign * exact_int(total)
    return values, last


def _shape(
    pool_id: str, user_id: str, values: Mapping[str, int], last: int | None, as_of: datetime | None
) -> dict[str, Any]:
    return {
        "pool_id": pool_id,
        "user_id": user_id,
        **{f"{bucket}_wei": str(values[bucket]) for bucket in BUCKETS},
        "last_movement_id": last,
        "as_of": format_time(as_of),
    }
