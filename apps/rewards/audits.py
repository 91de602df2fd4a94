"""Audits: replay the log of a pool, compare with its tables and its message keys, keep the finding."""

from dataclasses import asdict, replace

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Audit, Difference
from apps.common.database import Sessions, transaction
from apps.common.wire import new_id
from apps.rewards.index_math import PoolState
from apps.rewards.models import MessageKey, RewardAudit, RewardEvent, RewardPool, RewardPosition
from apps.rewards.replay import Replay
from apps.rewards.store import allow_long_statements, pool_state, position_state, settling_of

_ROWS_AT_A_TIME = 2_000
_MOST_DIFFERENCES = 1_000


def run_audit(sessions: Sessions, pool_id: str | None) -> Audit:
    """Audit one pool, or all of them, as of one moment, without stopping writers; store and return the finding."""
    with transaction(sessions) as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        pool_ids = [pool_id] if pool_id else _pool_ids(session)
        found = [
            replace(difference, subject=f"{each} {difference.subject}")
            for each in pool_ids
            for difference in _differences(session, each)
        ]
    kept = [asdict(difference) for difference in found[:_MOST_DIFFERENCES]]
    audit = RewardAudit(id=new_id(), pool_id=pool_id, ok=not found, differences=kept)
    with transaction(sessions) as session:
        session.add(audit)
        session.flush()
        session.refresh(audit)
    return audit_shape(audit)


def audit_shape(row: RewardAudit) -> Audit:
    """An audit as it is answered."""
    return Audit(row.id, row.ok, [Difference(**each) for each in row.differences], row.created_at)


def _differences(session: Session, pool_id: str) -> list[Difference]:
    # Plain rows, not entities: a log is long, and entities cost several times as much.
    events = session.execute(
        select(RewardEvent.__table__)
        .where(RewardEvent.pool_id == pool_id)
        .order_by(RewardEvent.id)
        .execution_options(yield_per=_ROWS_AT_A_TIME)
    )
    row = session.get(RewardPool, pool_id)
    settling = settling_of(row) if row else None
    replay = Replay().run(events, settling.after if settling else None)
    positions = session.scalars(
        select(RewardPosition).where(RewardPosition.pool_id == pool_id).execution_options(yield_per=_ROWS_AT_A_TIME)
    )
    found = ((position.user_id, position_state(position)) for position in positions)
    differences = replay.compare(pool_state(row) if row else PoolState(), found, row.lowest_standing if row else None)
    return differences + _unmatched(session, pool_id)


_UNMATCHED = text(
    """
    WITH kinds (endpoint, kind) AS (
        VALUES ('accruals', 'accrual'), ('parked/release', 'release'), ('claims', 'claim'),
               ('stake-deltas', 'stake_delta')
    ), promised AS (
        SELECT message_id COLLATE "C" AS message_id, kind FROM message_keys LEFT JOIN kinds USING (endpoint)
        WHERE status = 201 AND request ->> 'pool_id' = :pool_id
    ), done AS (
        SELECT message_id, kind FROM reward_events WHERE pool_id = :pool_id AND kind <> 'settle'
    )
    SELECT message_id, promised.kind AS promised, done.kind AS done
    FROM promised FULL JOIN done USING (message_id)
    WHERE promised.kind IS DISTINCT FROM done.kind ORDER BY message_id LIMIT :most
    """
)


def _unmatched(session: Session, pool_id: str) -> list[Difference]:
    """Messages answered with success that have no event, and events that no message asked for."""
    allow_long_statements(session)
    rows = session.execute(_UNMATCHED, {"pool_id": pool_id, "most": _MOST_DIFFERENCES})
    return [
        Difference(f"message {row.message_id}", "event", row.promised or "none", row.done or "none") for row in rows
    ]


def _pool_ids(session: Session) -> list[str]:
    """Every pool that has a row, an event or a message: what was lost is a finding, too."""
    asked = select(MessageKey.request["pool_id"].astext).where(MessageKey.status == 201)
    known = select(RewardPool.pool_id).union(select(RewardEvent.pool_id), select(RewardPosition.pool_id), asked)
    return sorted(session.scalars(known))
