"""What the index answers to questions: one consistent statement each, no locks."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, select, union
from sqlalchemy.orm import Session

from apps.clients.shapes import rewards as shapes
from apps.clients.shapes.common import AuditPage, IdPageQuery, SpanQuery
from apps.common.database import Sessions, transaction
from apps.common.spans import span_of
from apps.common.wire import cut, integer_cursor
from apps.rewards.audits import audit_shape
from apps.rewards.earnings import Event as EarningsEvent
from apps.rewards.earnings import earnings
from apps.rewards.index_math import PoolState, PositionState, pending_wei, reward_debt
from apps.rewards.models import RewardAudit, RewardEvent, RewardPool, RewardPosition
from apps.rewards.store import pool_state, position_state, settling_of


class RewardReads:
    """What the routes ask. Where a question names no pool, it is about `default_pool_id`."""

    def __init__(self, sessions: Sessions, default_pool_id: str, fee_bps: int) -> None:
        self._sessions = sessions
        self._fee_bps = fee_bps
        self._default_pool_id = default_pool_id

    def fee(self) -> shapes.Fee:
        """The company's part of gains."""
        return shapes.Fee(self._fee_bps)

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

    def earnings(self, query: SpanQuery, user_id: str) -> shapes.Earnings:
        """What a user earned over a span that ends now at the latest, day by day; raises `InvalidInput`."""
        pool_id = query.pool_id or self._default_pool_id
        with transaction(self._sessions) as session:
            start, end = span_of(query, session)
            # Whoever writes events holds the pool's row: what is of this span is there to be seen once it is free.
            session.execute(select(RewardPool.pool_id).where(RewardPool.pool_id == pool_id).with_for_update(read=True))
        with transaction(self._sessions) as session:
            found = earnings(_events_of(session, pool_id, user_id, start, end), start, end)
        return shapes.Earnings(
            pool_id=pool_id,
            user_id=user_id,
            start=start,
            end=end,
            opening_wei=found.opening_wei,
            closing_wei=found.closing_wei,
            fee_wei=found.fee_wei,
            apr=found.apr,
            days=[
                shapes.EarningsDay(day.date.isoformat(), day.earned_wei, day.fee_wei, day.weight_wei)
                for day in found.days
            ],
        )

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


def _events_of(session: Session, pool_id: str, user_id: str, start: datetime, end: datetime) -> Iterable[EarningsEvent]:
    """What `earnings` reads of a user, in the order of ids."""
    of_pool = RewardEvent.pool_id == pool_id
    moves_index = RewardEvent.kind.in_(("accrual", "release"))
    before = select(func.max(RewardEvent.id)).where(of_pool, moves_index, RewardEvent.created_at <= start)
    within = and_(moves_index, RewardEvent.created_at > start)
    columns = (
        RewardEvent.kind,
        RewardEvent.user_id,
        RewardEvent.staked_delta_wei,
        RewardEvent.exiting_delta_wei,
        RewardEvent.claimed_wei,
        RewardEvent.fee_wei,
        RewardEvent.weight_wei,
        RewardEvent.acc_reward_per_share,
        RewardEvent.created_at,
        RewardEvent.id,
    )
    parts = [
        select(*columns).where(of_pool, which, RewardEvent.created_at <= end)
        for which in (RewardEvent.user_id == user_id, within, RewardEvent.id == before.scalar_subquery())
    ]
    return session.execute(union(*parts).order_by("id"))


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
