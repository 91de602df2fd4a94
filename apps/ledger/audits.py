"""Audits: every balance recomputed from movements; a difference is a row, and there must be none."""

from typing import Any

from sqlalchemy import select, text

from apps.common.database import Sessions, transaction
from apps.common.wei import exact_int
from apps.common.wire import new_id, page, time_text
from apps.ledger.kinds import BUCKETS
from apps.ledger.models import Audit
from apps.ledger.service import account_sums

_RECOMPUTE = text(
    """
    WITH sides AS (
        SELECT pool_id, user_id, target AS account, amount_wei::numeric AS wei FROM movements WHERE user_id IS NOT NULL
        UNION ALL
        SELECT pool_id, user_id, source, -amount_wei::numeric FROM movements WHERE user_id IS NOT NULL
    ), sums AS (
        SELECT pool_id, user_id,
               coalesce(sum(wei) FILTER (WHERE account = 'available'), 0) AS available,
               coalesce(sum(wei) FILTER (WHERE account = 'reserved'), 0) AS reserved,
               coalesce(sum(wei) FILTER (WHERE account = 'staked'), 0) AS staked,
               coalesce(sum(wei) FILTER (WHERE account = 'unstaking'), 0) AS unstaking
        FROM sides GROUP BY pool_id, user_id
    )
    SELECT coalesce(s.pool_id, b.pool_id) AS pool_id, coalesce(s.user_id, b.user_id) AS user_id,
           coalesce(s.available, 0) AS available, coalesce(s.reserved, 0) AS reserved,
           coalesce(s.staked, 0) AS staked, coalesce(s.unstaking, 0) AS unstaking,
           coalesce(b.available_wei, 0) AS found_available, coalesce(b.reserved_wei, 0) AS found_reserved,
           coalesce(b.staked_wei, 0) AS found_staked, coalesce(b.unstaking_wei, 0) AS found_unstaking
    FROM sums s FULL JOIN balances b ON b.pool_id = s.pool_id AND b.user_id = s.user_id
    WHERE (coalesce(s.pool_id, b.pool_id) = :pool_id)
      AND (coalesce(s.available, 0), coalesce(s.reserved, 0), coalesce(s.staked, 0), coalesce(s.unstaking, 0))
          IS DISTINCT FROM
          (coalesce(b.available_wei, 0), coalesce(b.reserved_wei, 0), coalesce(b.staked_wei, 0),
          coalesce(b.unstaking_wei, 0))
    ORDER BY 1, 2
    """
)


def run_audit(sessions: Sessions, pool_id: str) -> dict[str, Any]:
    """Recompute a pool's balances in one snapshot, store and return the audit."""
    with transaction(sessions) as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        differences: list[dict[str, Any]] = []
        for row in session.execute(_RECOMPUTE, {"pool_id": pool_id}):
            for bucket in BUCKETS:
                expected, found = exact_int(getattr(row, bucket)), exact_int(getattr(row, f"found_{bucket}"))
                if expected != found:
                    subject = f"balance:{row.pool_id}:{row.user_id}"
                    differences.append(_difference(subject, f"{bucket}_wei", expected, found))
        total = sum(account_sums(session, pool_id).values())
        if total != 0:
            differences.append(_difference(f"pool:{pool_id}", "sum_wei", 0, total))
        audit = Audit(id=new_id(), ok=not differences, differences=differences)
        session.add(audit)
        session.flush()
        session.refresh(audit)
        return _render(audit)


def list_audits(sessions: Sessions, limit: int, after: str | None) -> dict[str, Any]:
    """Audits, newest first."""
    query = select(Audit).order_by(Audit.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Audit.id < after)
    with transaction(sessions) as session:
        rows = session.scalars(query).all()
    return page([_render(row) for row in rows], limit, lambda item: str(item["id"]))


def _difference(subject: str, field: str, expected: int, found: int) -> dict[str, str]:
    return {"subject": subject, "field": field, "expected": str(expected), "found": str(found)}


def _render(row: Audit) -> dict[str, Any]:
    return {"id": row.id, "ok": row.ok, "differences": row.differences, "created_at": time_text(row.created_at)}
