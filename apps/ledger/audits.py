"""Audits: the books recomputed from movements, and every reference looked up; a difference is a row, there must be none.

The schema refuses a balance that is not the sum of its movements. An audit does not trust it: a database owner can switch
keys and triggers off.

A full audit reads every movement. One of what is new starts where the last clean one ended: it checks the movements since,
where their chains take up the old ones, the balances of their users, the sum of all accounts, and one earlier stretch of
the log. After one that found something, every audit is a full one until a full one is clean.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Audit as AuditShape
from apps.clients.shapes.common import Difference
from apps.common.crashpoint import crashpoint
from apps.common.database import Sessions, transaction
from apps.common.stretches import Stretch, Stretches, old_is_trusted
from apps.common.wei import exact_int
from apps.common.wire import new_id
from apps.ledger.kinds import BUCKETS, KINDS
from apps.ledger.models import Audit, AuditStretch, SystemCheckpoint
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
# The first one after `after` takes up what its user's newest movement before left.
_CHAIN = text(
    """
    SELECT 'movement:' || m.message_id AS subject, field.name AS field,
           coalesce(field.expected, 0) AS expected, field.found
    FROM (
        SELECT id, message_id, previous_id, available_before, reserved_before, staked_before, unstaking_before,
               coalesce(lag_id, b.before_id) AS before_id, CASE WHEN lag_id IS NULL THEN b.a ELSE lag_a END AS a,
               CASE WHEN lag_id IS NULL THEN b.r ELSE lag_r END AS r, CASE WHEN lag_id IS NULL THEN b.s ELSE lag_s END AS s,
               CASE WHEN lag_id IS NULL THEN b.u ELSE lag_u END AS u
        FROM (
            SELECT *, lag(id) OVER w AS lag_id, lag(available_wei) OVER w AS lag_a, lag(reserved_wei) OVER w AS lag_r,
                   lag(staked_wei) OVER w AS lag_s, lag(unstaking_wei) OVER w AS lag_u
            FROM movements WHERE pool_id = :pool_id AND user_id IS NOT NULL AND id > :after
            WINDOW w AS (PARTITION BY user_id ORDER BY id)
        ) n
        LEFT JOIN LATERAL (
            SELECT id AS before_id, available_wei AS a, reserved_wei AS r, staked_wei AS s, unstaking_wei AS u
            FROM movements o
            WHERE n.lag_id IS NULL AND o.pool_id = :pool_id AND o.user_id = n.user_id AND o.id <= :after
            ORDER BY o.id DESC LIMIT 1
        ) b ON true
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

# Balances of users with movements above `after` or within a stretch are what their newest movement left.
_HEADS = text(
    """
    WITH touched AS (
        SELECT DISTINCT user_id FROM movements
        WHERE pool_id = :pool_id AND user_id IS NOT NULL
          AND (id > :after OR (id > :from_id AND id <= :through_id))
    )
    SELECT 'balance:' || :pool_id || ':' || t.user_id AS subject, field.name AS field,
           field.expected, coalesce(field.found, 0) AS found
    FROM touched t
    JOIN LATERAL (
        SELECT * FROM movements m WHERE m.pool_id = :pool_id AND m.user_id = t.user_id ORDER BY m.id DESC LIMIT 1
    ) m ON true
    LEFT JOIN balances b ON b.pool_id = :pool_id AND b.user_id = t.user_id
    CROSS JOIN LATERAL (VALUES
        ('available_wei', m.available_wei::numeric, b.available_wei::numeric),
        ('reserved_wei', m.reserved_wei::numeric, b.reserved_wei::numeric),
        ('staked_wei', m.staked_wei::numeric, b.staked_wei::numeric),
        ('unstaking_wei', m.unstaking_wei::numeric, b.unstaking_wei::numeric),
        ('last_movement_id', m.id::numeric, b.last_movement_id::numeric)
    ) AS field(name, expected, found)
    WHERE field.expected IS DISTINCT FROM field.found ORDER BY subject, field
    """
)

# Keys name no pool and no time: only a full audit looks for those that nothing came of.
_KEYS = text(
    """
    SELECT 'message:' || k.message_id AS subject, 'movements' AS field, 1 AS expected, 0 AS found
    FROM message_keys k
    WHERE NOT EXISTS (SELECT FROM movements m WHERE m.message_id = k.message_id)
      AND NOT EXISTS (SELECT FROM refusals r WHERE r.message_id = k.message_id)
    ORDER BY 1
    """
)

# Each row says how many there should be of something, and how many there are.
_REFERENCES = text(
    """
    WITH kinds AS (SELECT * FROM jsonb_to_recordset(CAST(:kinds AS jsonb)) AS k(kind text, source text, target text))
    SELECT 'movement:' || m.message_id AS subject, 'message_keys' AS field, 1 AS expected, 0 AS found
    FROM movements m WHERE m.pool_id = :pool_id AND m.id > :after
      AND NOT EXISTS (SELECT FROM message_keys k WHERE k.message_id = m.message_id)
    UNION ALL
    SELECT 'movement:' || m.message_id, 'refusals', 0, 1
    FROM movements m JOIN refusals r ON r.message_id = m.message_id WHERE m.pool_id = :pool_id AND m.id > :after
    UNION ALL
    SELECT 'movement:' || m.message_id, 'kind', 1, 0
    FROM movements m WHERE m.pool_id = :pool_id AND m.id > :after AND m.kind <> 'reversal'
      AND NOT EXISTS (SELECT FROM kinds k WHERE (k.kind, k.source, k.target) = (m.kind, m.source, m.target))
    UNION ALL
    SELECT 'movement:' || m.message_id, 'reference', 1, 0
    FROM movements m WHERE m.pool_id = :pool_id AND m.id > :after AND m.kind = 'reversal'
      AND NOT EXISTS (
          SELECT FROM movements o
          WHERE o.message_id = m.reference AND o.kind <> 'reversal' AND o.id < m.id
            AND (o.pool_id, o.amount_wei, o.source, o.target) = (m.pool_id, m.amount_wei, m.target, m.source)
            AND o.user_id IS NOT DISTINCT FROM m.user_id)
    ORDER BY 1, 2
    """
)


_STRETCHES = Stretches(
    AuditStretch,
    "movements",
    (
        *("id", "message_id", "kind", "user_id", "amount_wei", "reference", "source", "target", "created_at"),
        *("previous_id", "available_wei", "reserved_wei", "staked_wei", "unstaking_wei"),
    ),
)


def run_audit(sessions: Sessions, pool_id: str, *, full: bool) -> AuditShape:
    """Audit a pool's books in one snapshot, store and return the finding; `full` or what is new.

    One without differences also stores where it ended, the digests of what it read, and what the system accounts hold, so
    that their sums start from there.
    """
    through = settled_newest(sessions)
    with transaction(sessions) as session:
        one_snapshot(session)
        # The audit reads a whole history, which may take longer than the limit of ordinary statements.
        session.execute(text("SET LOCAL statement_timeout = '10min'"))
        start = _start(session, pool_id)
        after = None if full else start
        read_again = (
            _STRETCHES.all(session, pool_id)
            if after is None
            else _STRETCHES.to_read_again(session, pool_id, _audits_of(session, pool_id))
        )
        differences = list(_differences(session, pool_id, after, read_again))
        checkpoint = [] if differences else _checkpoint(session, pool_id, through)
        stretches = [] if differences else _STRETCHES.take(session, pool_id, start or 0, through)
    crashpoint("ledger.audit.found")
    # A transaction of its own: in the snapshot's, a row that another audit inserted meanwhile would be a conflict. Two
    # audits at once may have come to the same id, and then to the same sums.
    with transaction(sessions) as session:
        audit = Audit(
            id=new_id(),
            pool_id=pool_id,
            complete=after is None,
            through_id=None if differences else through,
            ok=not differences,
            differences=[asdict(each) for each in differences],
        )
        session.add(audit)
        session.flush()
        session.refresh(audit)
        if checkpoint:
            session.execute(insert(SystemCheckpoint).values(checkpoint).on_conflict_do_nothing())
        _STRETCHES.keep(session, pool_id, stretches)
    return audit_shape(audit)


def _start(session: Session, pool_id: str) -> int | None:
    """The id up to which the books are known to be right; None where only a full audit can tell."""
    if not old_is_trusted(session, Audit, Audit.pool_id == pool_id):
        return None
    return session.scalar(select(func.max(Audit.through_id)).where(Audit.pool_id == pool_id, Audit.ok))


def _audits_of(session: Session, pool_id: str) -> int:
    return session.scalar(select(func.count()).select_from(Audit).where(Audit.pool_id == pool_id)) or 0


def audit_shape(row: Audit) -> AuditShape:
    """An audit as it is answered."""
    return AuditShape(row.id, row.ok, [Difference(**each) for each in row.differences], row.created_at)


def _differences(
    session: Session, pool_id: str, after: int | None, read_again: Sequence[Stretch]
) -> Iterator[Difference]:
    """What is wrong above the id `after`, within the stretches read again, and with the sums; all of it where that is
    None."""
    kinds = json.dumps([{"kind": name, "source": k.source, "target": k.target} for name, k in KINDS.items()])
    values = {"pool_id": pool_id, "after": after or 0, "kinds": kinds}
    for query, more in _queries(after, read_again):
        for row in session.execute(query, {**values, **more}):
            yield _difference(row.subject, row.field, exact_int(row.expected), exact_int(row.found))
    for stretch in read_again:
        changed = _STRETCHES.changed(session, pool_id, stretch)
        if changed is not None:
            subject = f"movements:{pool_id}:{stretch.from_id + 1}-{stretch.through_id}"
            yield Difference(subject, "digest", stretch.digest, changed)
    told = account_sums(session, pool_id)
    if after is None:
        recomputed = system_sums_since(session, pool_id, 0)
        for account in sorted({*recomputed, *(name for name in told if name not in BUCKETS)}):
            expected, found = recomputed.get(account, 0), told.get(account, 0)
            if expected != found:
                yield _difference(f"account:{pool_id}:{account}", "sum_wei", expected, found)
    if sum(told.values()) != 0:
        yield _difference(f"pool:{pool_id}", "sum_wei", 0, sum(told.values()))


def _queries(after: int | None, read_again: Sequence[Stretch]) -> list[tuple[TextClause, dict[str, int]]]:
    if after is None:
        return [(_BALANCES, {}), (_CHAIN, {}), (_REFERENCES, {}), (_KEYS, {})]
    heads = {"from_id": 0, "through_id": 0}
    for stretch in read_again:
        heads = {"from_id": stretch.from_id, "through_id": stretch.through_id}
    return [(_HEADS, heads), (_CHAIN, {}), (_REFERENCES, {})]


def _checkpoint(session: Session, pool_id: str, through: int) -> list[dict[str, str | int]]:
    """What the system accounts held after the movement `through`: as they are now, less what came since."""
    later = system_sums_since(session, pool_id, through)
    now = {name: wei for name, wei in account_sums(session, pool_id).items() if name not in BUCKETS}
    return [
        {"pool_id": pool_id, "through_id": through, "account": account, "sum_wei": total - later.get(account, 0)}
        for account, total in now.items()
    ]


def _difference(subject: str, field: str, expected: int, found: int) -> Difference:
    return Difference(subject, field, str(expected), str(found))
