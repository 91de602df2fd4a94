"""Audits: the books recomputed from movements, and every reference looked up; a difference is a row, there must be none.

The schema refuses a balance that is not the sum of its movements. An audit does not trust it: a database owner can switch
keys and triggers off.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Audit as AuditShape
from apps.clients.shapes.common import Difference
from apps.common.database import Sessions, transaction
from apps.common.wei import exact_int
from apps.common.wire import new_id
from apps.ledger.kinds import BUCKETS, KINDS
from apps.ledger.models import Audit, SystemCheckpoint
from apps.ledger.movements import settled_newest
from apps.ledger.sums import account_sums, one_snapshot, system_sums_since

_BALANCES = text(
    """
    WITH sides AS (
        SELECT user_id, id, target AS account, amount_wei::numeric AS wei FROM movements
        WHERE pool_id = :pool_id AND user_id IS NOT NULL
        UNION ALL
        SELECT user_id, id, source, -amount_wei::numeric FROM movements
        WHERE pool_id = :pool_id AND user_id IS NOT NULL
    ), sums AS (
        SELECT user_id, max(id) AS last_movement_id,
               coalesce(sum(wei) FILTER (WHERE account = 'available'), 0) AS available_wei,
               coalesce(sum(wei) FILTER (WHERE account = 'reserved'), 0) AS reserved_wei,
               coalesce(sum(wei) FILTER (WHERE account = 'staked'), 0) AS staked_wei,
               coalesce(sum(wei) FILTER (WHERE account = 'unstaking'), 0) AS unstaking_wei
        FROM sides GROUP BY user_id
    ), both_sides AS (
        SELECT 'balance:' || :pool_id || ':' || coalesce(s.user_id, b.user_id) AS subject, field.*
        FROM sums s
        FULL JOIN (SELECT * FROM balances WHERE pool_id = :pool_id) b ON b.user_id = s.user_id
        CROSS JOIN LATERAL (VALUES
            ('available_wei', s.available_wei, b.available_wei::numeric),
            ('reserved_wei', s.reserved_wei, b.reserved_wei::numeric),
            ('staked_wei', s.staked_wei, b.staked_wei::numeric),
            ('unstaking_wei', s.unstaking_wei, b.unstaking_wei::numeric),
            ('last_movement_id', s.last_movement_id, b.last_movement_id)
        ) AS field(name, expected, found)
    )
    SELECT subject, name AS field, coalesce(expected, 0) AS expected, coalesce(found, 0) AS found
    FROM both_sides WHERE coalesce(expected, 0) <> coalesce(found, 0) ORDER BY subject, field
    """
)

# The chain, link by link: what was held before is what the movement before left; one start; one successor each.
_CHAIN = text(
    """
    SELECT 'movement:' || m.message_id AS subject, field.name AS field,
           coalesce(field.expected, 0) AS expected, field.found
    FROM (
        SELECT *, lag(id) OVER w AS before_id, lag(available_wei) OVER w AS a, lag(reserved_wei) OVER w AS r,
               lag(staked_wei) OVER w AS s, lag(unstaking_wei) OVER w AS u
        FROM movements WHERE pool_id = :pool_id AND user_id IS NOT NULL
        WINDOW w AS (PARTITION BY user_id ORDER BY id)
    ) m
    CROSS JOIN LATERAL (VALUES
        ('previous_id', m.before_id::numeric, coalesce(m.previous_id, 0)::numeric),
        ('available_before', m.a::numeric, m.available_before), ('reserved_before', m.r::numeric, m.reserved_before),
        ('staked_before', m.s::numeric, m.staked_before), ('unstaking_before', m.u::numeric, m.unstaking_before)
    ) AS field(name, expected, found)
    WHERE coalesce(field.expected, 0) IS DISTINCT FROM field.found
    ORDER BY m.id, field.name
    """
)

# Each row says how many there should be of something, and how many there are.
_REFERENCES = text(
    """
    WITH kinds AS (SELECT * FROM jsonb_to_recordset(CAST(:kinds AS jsonb)) AS k(kind text, source text, target text))
    SELECT 'movement:' || m.message_id AS subject, 'message_keys' AS field, 1 AS expected, 0 AS found
    FROM movements m WHERE m.pool_id = :pool_id
      AND NOT EXISTS (SELECT FROM message_keys k WHERE k.message_id = m.message_id)
    UNION ALL
    SELECT 'movement:' || m.message_id, 'refusals', 0, 1
    FROM movements m JOIN refusals r ON r.message_id = m.message_id WHERE m.pool_id = :pool_id
    UNION ALL
    SELECT 'message:' || k.message_id, 'movements', 1, 0
    FROM message_keys k
    WHERE NOT EXISTS (SELECT FROM movements m WHERE m.message_id = k.message_id)
      AND NOT EXISTS (SELECT FROM refusals r WHERE r.message_id = k.message_id)
    UNION ALL
    SELECT 'movement:' || m.message_id, 'kind', 1, 0
    FROM movements m WHERE m.pool_id = :pool_id AND m.kind <> 'reversal'
      AND NOT EXISTS (SELECT FROM kinds k WHERE (k.kind, k.source, k.target) = (m.kind, m.source, m.target))
    UNION ALL
    SELECT 'movement:' || m.message_id, 'reference', 1, 0
    FROM movements m WHERE m.pool_id = :pool_id AND m.kind = 'reversal'
      AND NOT EXISTS (
          SELECT FROM movements o
          WHERE o.message_id = m.reference AND o.kind <> 'reversal' AND o.id < m.id
            AND (o.pool_id, o.amount_wei, o.source, o.target) = (m.pool_id, m.amount_wei, m.target, m.source)
            AND o.user_id IS NOT DISTINCT FROM m.user_id)
    ORDER BY 1, 2
    """
)


def run_audit(sessions: Sessions, pool_id: str) -> AuditShape:
    """Recompute a pool's books in one snapshot, store and return the audit.

    One without differences also stores what the system accounts hold, so that their sums start from there.
    """
    through = settled_newest(sessions)
    with transaction(sessions) as session:
        one_snapshot(session)
        # The audit reads a whole history, which may take longer than the limit of ordinary statements.
        session.execute(text("SET LOCAL statement_timeout = '10min'"))
        differences = list(_differences(session, pool_id))
        audit = Audit(id=new_id(), ok=not differences, differences=[asdict(each) for each in differences])
        session.add(audit)
        session.flush()
        session.refresh(audit)
        checkpoint = _checkpoint(session, pool_id, through) if audit.ok else []
    if checkpoint:
        # Two audits at once may have come to the same id, and then to the same sums. This is a transaction of its own: in
        # the snapshot's, a row that another audit inserted meanwhile would be a conflict.
        with transaction(sessions) as session:
            session.execute(insert(SystemCheckpoint).values(checkpoint).on_conflict_do_nothing())
    return audit_shape(audit)


def audit_shape(row: Audit) -> AuditShape:
    """An audit as it is answered."""
    return AuditShape(row.id, row.ok, [Difference(**each) for each in row.differences], row.created_at)


def _differences(session: Session, pool_id: str) -> Iterator[Difference]:
    kinds = json.dumps([{"kind": name, "source": k.source, "target": k.target} for name, k in KINDS.items()])
    for query, values in ((_BALANCES, {}), (_CHAIN, {}), (_REFERENCES, {"kinds": kinds})):
        for row in session.execute(query, {"pool_id": pool_id, **values}):
            yield _difference(row.subject, row.field, exact_int(row.expected), exact_int(row.found))
    told = account_sums(session, pool_id)
    recomputed = system_sums_since(session, pool_id, 0)
    for account in sorted({*recomputed, *(name for name in told if name not in BUCKETS)}):
        expected, found = recomputed.get(account, 0), told.get(account, 0)
        if expected != found:
            yield _difference(f"account:{pool_id}:{account}", "sum_wei", expected, found)
    if sum(told.values()) != 0:
        yield _difference(f"pool:{pool_id}", "sum_wei", 0, sum(told.values()))


def _checkpoint(session: Session, pool_id: str, through: int) -> list[dict[str, str | int]]:
    later = system_sums_since(session, pool_id, through)
    everything = system_sums_since(session, pool_id, 0)
    return [
        {"pool_id": pool_id, "through_id": through, "account": account, "sum_wei": total - later.get(account, 0)}
        for account, total in everything.items()
    ]


def _difference(subject: str, field: str, expected: int, found: int) -> Difference:
    return Difference(subject, field, str(expected), str(found))
