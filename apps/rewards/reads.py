"""What the index answers to questions: one consistent statement each, no locks."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.shapes import rewards as shapes
from apps.clients.shapes.common import AuditPage, IdPageQuery
from apps.common.database import Sessions, transaction
from apps.common.wire import cut, integer_cursor
from apps.rewards.audits import audit_shape
from apps.rewards.index_math import PoolState, PositionState, pending_wei, reward_debt
from apps.rewards.models import RewardAudit, RewardEvent, RewardPool, RewardPosition
from apps.rewards.store import pool_state, position_state, settling_of


class RewardReads:
    """What the routes ask. Where a question names no pool, it is about `default_pool_id`."""

    def __init__(self, sessions: Sessions, default_pool_id: str) -> None:
        self._sessions = sessions
        self._default_pool_id = default_pool_id

    def pool(self, pool_id: str) -> shapes.RewardPool:
        """A pool's index and sums; zeros where nothing ever happened."""
        with transaction(self._sessions) as session:
            row = session.get(RewardPool, pool_id)
        state = pool_state(row) if row else PoolState()
        return shapes.RewardPool(
            pool_id=pool_id,
            weight_wei=state.weight,
            acc_reward_per_share=state.index,
            remainder=state.remainder,
            accrued_wei=state.accrued,
            claimed_wei=state.claimed,
            parked_wei=state.parked,
            deficit_wei=state.deficit,
            settling=row is not None and settling_of(row) is not None,
        )

    def position(self, pool_id: str | None, user_id: str) -> shapes.Position:
        """A user's position with its pending reward as of now; zeros where there is none."""
        pool_id = pool_id or self._default_pool_id
        with transaction(self._sessions) as session:
            found = _positions(session, pool_id, RewardPosition.user_id == user_id, limit=1)
        return found[0] if found else _position(pool_id, user_id, PositionState(), 0, None)

    def positions(self, query: shapes.PositionsQuery) -> shapes.Positions:
        """All positions of a pool in user order; the cursor is a user id."""
        pool_id = query.pool_id or self._default_pool_id
        with transaction(self._sessions) as session:
            found = _positions(session, pool_id, RewardPosition.user_id > (query.after or ""), limit=query.limit + 1)
        items, following = cut(found, query.limit, lambda item: item.user_id)
        return shapes.Positions(items, following)

    def events(self, query: shapes.EventsQuery) -> shapes.Events:
        """The log after a sequence number, oldest first; `next` is always the last number seen."""
        after = integer_cursor(query.after)
        pool_id = query.pool_id or self._default_pool_id
        statement = select(RewardEvent).where(RewardEvent.pool_id == pool_id, RewardEvent.id > after)
        if query.kind is not None:
            statement = statement.where(RewardEvent.kind == query.kind)
        if query.user_id is not None:
            statement = statement.where(RewardEvent.user_id == query.user_id)
        head = None
        with transaction(self._sessions) as session:
            if query.settled:
                # All up to here is there to be seen: whoever writes events of a pool holds its row until the commit.
                head = session.scalar(select(func.max(RewardEvent.id)).where(RewardEvent.pool_id == pool_id)) or after
                moved = RewardEvent.kind.in_(("claim", "settle")), RewardEvent.claimed_wei != 0
                statement = statement.where(*moved, RewardEvent.id <= head)
            rows = session.scalars(statement.order_by(RewardEvent.id).limit(query.limit)).all()
        following = rows[-1].id if rows else after
        if head is not None and len(rows) < query.limit:
            following = max(after, head)
        return shapes.Events(items=[_event(row) for row in rows], next=following)

    def audits(self, query: IdPageQuery) -> AuditPage:
        """Audits, newest first; the cursor is an audit's id."""
        statement = select(RewardAudit).order_by(RewardAudit.id.desc()).limit(query.limit + 1)
        if query.after is not None:
            statement = statement.where(RewardAudit.id < query.after)
        with transaction(self._sessions) as session:
            rows = session.scalars(statement).all()
        return AuditPage(*cut([audit_shape(row) for row in rows], query.limit, lambda item: item.id))


def _positions(session: Session, pool_id: str, which: Any, *, limit: int) -> list[shapes.Position]:
    """Positions joined with their pool's index, in one statement: a position never meets another moment's index."""
    rows = session.execute(
        select(RewardPosition, RewardPool.acc_reward_per_share)
        .join(RewardPool, RewardPool.pool_id == RewardPosition.pool_id)
        .where(RewardPosition.pool_id == pool_id, which)
        .order_by(RewardPosition.user_id)
        .limit(limit)
    ).all()
    return [_position(pool_id, row.user_id, position_state(row), index, row.updated_at) for row, index in rows]


def _position(
    pool_id: str, user_id: str, state: PositionState, index: int, updated_at: datetime | None
) -> shapes.Position:
    return shapes.Position(
        pool_id=pool_id,
        user_id=user_id,
        staked_wei=state.staked,
        exiting_wei=state.exiting,
        pending_wei=pending_wei(state, index),
        claimed_wei=state.claimed,
        reward_debt=reward_debt(state),
        updated_at=updated_at,
    )


def _event(row: RewardEvent) -> shapes.Event:
    return shapes.Event(
        id=row.id,
        pool_id=row.pool_id,
        kind=row.kind,
        message_id=row.message_id,
        user_id=row.user_id,
        staked_delta_wei=row.staked_delta_wei,
        exiting_delta_wei=row.exiting_delta_wei,
        claimed_wei=row.claimed_wei,
        new_rewards_wei=row.new_rewards_wei,
        fee_wei=row.fee_wei,
        distributed_wei=row.distributed_wei,
        parked_wei=row.parked_wei,
        weight_wei=row.weight_wei,
        source=row.source,
        acc_reward_per_share=row.acc_reward_per_share,
        created_at=row.created_at,
    )
