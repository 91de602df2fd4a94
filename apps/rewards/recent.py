"""An audit of what is new in a pool: from where the last clean one ended, at a cost that follows what happened since.

The new events are replayed from the pool's numbers of then, and the positions that they touch from those users' own
events. Of what is older it checks what one statement tells: the sums over all positions, and that nobody is below zero.
"""

from collections.abc import Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Difference
from apps.common.wei import exact_int
from apps.rewards import index_math
from apps.rewards.index_math import P, PoolState, PositionState
from apps.rewards.models import AuditCheckpoint, RewardEvent, RewardPool, RewardPosition
from apps.rewards.replay import Replay, conservation, position_of
from apps.rewards.standings import lowest_standing
from apps.rewards.store import allow_long_statements, pool_state, position_state, settling_of


def recent_differences(session: Session, pool_id: str, start: AuditCheckpoint) -> list[Difference]:
    """Every difference that the events after `start` show. Raises `NeedsAllPositions` where they do not suffice."""
    allow_long_statements(session)
    events = _events(session, RewardEvent.pool_id == pool_id, RewardEvent.id > start.through_id)
    users = sorted({event.user_id for event in events if event.user_id is not None})
    replay = Replay(pool=state_of(start.state), all_positions=False)
    replay.positions = _positions_before(session, pool_id, users, start.through_id, replay.differences)
    row = session.get(RewardPool, pool_id)
    settling = settling_of(row) if row else None
    replay.run(events, settling.after if settling else None)
    pool = pool_state(row) if row else PoolState()
    found = replay.compare_pool(pool)
    found += replay.compare_positions(_rows(session, pool_id, users))
    found += conservation(pool, **_sums(session, pool_id, pool.index))
    for index in replay.settled_at:
        found += _left_unsettled(session, pool_id, start.through_id, index)
    if replay.losses:
        lowest = lowest_standing(session, pool_id)
        if lowest is not None and P + pool.index + lowest < 0:
            found.append(Difference("conservation", "standing", "0", str(P + pool.index + lowest)))
    return found + _unasked(session, pool_id, start.through_id)


def state_to_keep(pool: PoolState) -> dict[str, str]:
    """A pool's numbers as a checkpoint keeps them."""
    return {each.name: str(getattr(pool, each.name)) for each in fields(pool)}


def state_of(kept: dict[str, str]) -> PoolState:
    return PoolState(**{name: int(value) for name, value in kept.items()})


def _events(session: Session, *which: Any) -> Sequence[Row[Any]]:
    return session.execute(select(RewardEvent.__table__).where(*which).order_by(RewardEvent.id)).all()


def _positions_before(
    session: Session, pool_id: str, users: Sequence[str], through_id: int, differences: list[Difference]
) -> dict[str, PositionState]:
    """The positions of users after the event `through_id`, from their own events."""
    rows = session.execute(
        select(RewardEvent.__table__)
        .where(RewardEvent.pool_id == pool_id, RewardEvent.user_id.in_(users), RewardEvent.id <= through_id)
        .order_by(RewardEvent.user_id, RewardEvent.id)
    )
    found = {}
    for user_id, events in groupby(rows, lambda row: str(row.user_id)):
        try:
            found[user_id] = position_of(events)
        except ValueError as error:
            differences.append(Difference(f"position {user_id}", "history", "possible", type(error).__name__))
    return found


def _rows(session: Session, pool_id: str, users: Sequence[str]) -> dict[str, PositionState]:
    which = (RewardPosition.pool_id == pool_id, RewardPosition.user_id.in_(users))
    rows = session.execute(select(RewardPosition.__table__).where(*which))
    return {row.user_id: position_state(row) for row in rows}


_SUMS = text(
    """
    SELECT coalesce(sum(staked_wei + exiting_wei), 0) AS weight, coalesce(sum(claimed_wei), 0) AS claimed,
           coalesce(sum(pending_scaled + (staked_wei + exiting_wei) * (CAST(:index AS numeric) - index_snapshot)), 0) AS owed
    FROM reward_positions WHERE pool_id = :pool_id
    """
)


def _sums(session: Session, pool_id: str, index: int) -> dict[str, int]:
    row = session.execute(_SUMS, {"pool_id": pool_id, "index": index}).one()
    return {"weight": exact_int(row.weight), "claimed": exact_int(row.claimed), "owed": exact_int(row.owed)}


_LEFT_UNSETTLED = text(
    """
    SELECT user_id, owed FROM (
        SELECT p.user_id, p.pending_scaled + (p.staked_wei + p.exiting_wei) * (CAST(:index AS numeric) - p.index_snapshot) AS owed
        FROM reward_positions p
        WHERE p.pool_id = :pool_id AND NOT EXISTS (
            SELECT FROM reward_events e WHERE e.pool_id = p.pool_id AND e.user_id = p.user_id AND e.id > :after)
    ) untouched
    WHERE owed < 0 OR owed >= :p ORDER BY user_id LIMIT 100
    """
)


def _left_unsettled(session: Session, pool_id: str, after: int, index: int) -> list[Difference]:
    """Positions that a settled loss should have reached, and that have no event of it."""
    rows = session.execute(_LEFT_UNSETTLED, {"pool_id": pool_id, "after": after, "index": index, "p": P})
    return [
        Difference("conservation", f"settled {row.user_id}", "0", str(exact_int(row.owed) // index_math.P))
        for row in rows
    ]


_UNASKED = text(
    """
    WITH kinds (endpoint, kind) AS (
        VALUES ('accruals', 'accrual'), ('parked/release', 'release'), ('claims', 'claim'),
               ('stake-deltas', 'stake_delta')
    )
    SELECT e.message_id, e.kind FROM reward_events e
    WHERE e.pool_id = :pool_id AND e.id > :after AND e.kind <> 'settle' AND NOT EXISTS (
        SELECT FROM message_keys k JOIN kinds USING (endpoint)
        WHERE k.message_id = e.message_id AND k.status = 201 AND kinds.kind = e.kind
          AND k.request ->> 'pool_id' = e.pool_id)
    ORDER BY e.id LIMIT 1000
    """
)


def _unasked(session: Session, pool_id: str, after: int) -> list[Difference]:
    """New events that no message asked for."""
    rows = session.execute(_UNASKED, {"pool_id": pool_id, "after": after})
    return [Difference(f"message {row.message_id}", "event", "none", row.kind) for row in rows]
