"""Audits: replay the log of a pool, compare with its tables and its message keys, keep the finding."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Audit, Difference
from apps.common.crashpoint import crashpoint
from apps.common.database import Sessions, transaction
from apps.common.stretches import Stretch, Stretches, old_is_trusted
from apps.common.wire import new_id
from apps.rewards.index_math import PoolState
from apps.rewards.models import (
    AuditCheckpoint,
    AuditStretch,
    MessageKey,
    RewardAudit,
    RewardEvent,
    RewardPool,
    RewardPosition,
)
from apps.rewards.recent import recent_differences, state_to_keep
from apps.rewards.replay import NeedsAllPositions, Replay
from apps.rewards.store import allow_long_statements, newest_event, pool_state, position_state, settling_of

_ROWS_AT_A_TIME = 2_000
_MOST_DIFFERENCES = 1_000


_STRETCHES = Stretches(
    AuditStretch,
    "reward_events",
    (
        *("id", "kind", "message_id", "user_id", "staked_delta_wei", "exiting_delta_wei", "claimed_wei", "created_at"),
        *("new_rewards_wei", "fee_wei", "distributed_wei", "parked_wei", "weight_wei", "fee_bps", "source"),
        "acc_reward_per_share",
    ),
)


@dataclass
class _Clean:
    """What a clean audit of a pool leaves for the next one."""

    checkpoint: dict[str, Any]
    stretches: list[Stretch]


def run_audit(sessions: Sessions, pool_id: str | None, *, full: bool) -> Audit:
    """Audit one pool, or all of them, as of one moment, without stopping writers; store and return the finding.

    `full` replays the log from its beginning; else what came after the last clean audit is replayed, and one earlier
    stretch of the log is read again. After an audit that found something, all are full until a full one is clean.
    """
    found: list[Difference] = []
    left: dict[str, _Clean] = {}
    complete = True
    with transaction(sessions) as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        for each in [pool_id] if pool_id else _pool_ids(session):
            start = _start(session, each)
            recent = None if full or start is None else _recent(session, each, start)
            differences = _differences(session, each) + _reread(session, each, None) if recent is None else recent
            complete = complete and recent is None
            found += [replace(difference, subject=f"{each} {difference.subject}") for difference in differences]
            if not differences:
                left |= _clean(session, each, start)
    crashpoint("rewards.audit.found")
    kept = [asdict(difference) for difference in found[:_MOST_DIFFERENCES]]
    audit = RewardAudit(id=new_id(), pool_id=pool_id, complete=complete, ok=not found, differences=kept)
    with transaction(sessions) as session:
        session.add(audit)
        session.flush()
        session.refresh(audit)
        for each, clean in left.items() if audit.ok else ():
            session.execute(insert(AuditCheckpoint).values(clean.checkpoint).on_conflict_do_nothing())
            _STRETCHES.keep(session, each, clean.stretches)
    return audit_shape(audit)


def audit_shape(row: RewardAudit) -> Audit:
    """An audit as it is answered."""
    return Audit(row.id, row.ok, [Difference(**each) for each in row.differences], row.created_at)


def _start(session: Session, pool_id: str) -> AuditCheckpoint | None:
    """Where the newest clean audit of a pool ended; None where only a full one can tell."""
    of_pool = or_(RewardAudit.pool_id == pool_id, RewardAudit.pool_id.is_(None))
    if not old_is_trusted(session, RewardAudit, of_pool):
        return None
    newest = select(AuditCheckpoint).where(AuditCheckpoint.pool_id == pool_id)
    return session.scalars(newest.order_by(AuditCheckpoint.through_id.desc()).limit(1)).one_or_none()


def _recent(session: Session, pool_id: str, start: AuditCheckpoint) -> list[Difference] | None:
    """What is wrong with what is new; None where only a full audit can tell."""
    try:
        differences = recent_differences(session, pool_id, start)
    except NeedsAllPositions:
        return None
    turn = session.scalar(select(func.count()).select_from(RewardAudit)) or 0
    return differences + _reread(session, pool_id, turn)


def _reread(session: Session, pool_id: str, turn: int | None) -> list[Difference]:
    """Stretches of the log that are not as they were: the one whose turn it is, or all."""
    stretches = _STRETCHES.all(session, pool_id) if turn is None else _STRETCHES.to_read_again(session, pool_id, turn)
    changed = [(stretch, _STRETCHES.changed(session, pool_id, stretch)) for stretch in stretches]
    return [
        Difference(f"events {stretch.from_id + 1}-{stretch.through_id}", "digest", stretch.digest, now)
        for stretch, now in changed
        if now is not None
    ]


def _clean(session: Session, pool_id: str, start: AuditCheckpoint | None) -> dict[str, _Clean]:
    """What the next audit starts from; nothing while a loss is being settled, or where the pool has no event."""
    row = session.get(RewardPool, pool_id)
    through = session.scalar(newest_event(pool_id)) or 0
    if row is None or through == 0 or settling_of(row) is not None:
        return {}
    checkpoint = {"pool_id": pool_id, "through_id": through, "state": state_to_keep(pool_state(row))}
    stretches = _STRETCHES.take(session, pool_id, start.through_id if start else 0, through)
    return {pool_id: _Clean(checkpoint, stretches)}


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
