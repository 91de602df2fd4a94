"""What the index answers to questions: one consistent statement each, no locks."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.wire import format_time, page, time_text
from apps.rewards.index_math import PoolState, PositionState, pending_wei, reward_debt
from apps.rewards.models import RewardEvent, RewardPool, RewardPosition
from apps.rewards.store import pool_state, position_state


class RewardReads:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def pool(self, pool_id: str) -> dict[str, Any]:
        """A `reward pool`; zeros where nothing ever happened."""
        with transaction(self._sessions) as session:
            row = session.get(RewardPool, pool_id)
        state = pool_state(row) if row else PoolState()
        return {
            "pool_id": pool_id,
            "weight_wei": str(state.weight),
            "acc_reward_per_share": str(state.index),
            "remainder": str(state.remainder),
            "accrued_wei": str(state.accrued),
            "claimed_wei": str(state.claimed),
            "parked_wei": str(state.parked),
            "deficit_wei": str(state.deficit),
        }

    def position(self, pool_id: str, user_id: str) -> dict[str, Any]:
        """A `position` with its pending reward as of now; zeros where there is none."""
        with transaction(self._sessions) as session:
            found = _positions(session, pool_id, RewardPosition.user_id == user_id, limit=1)
        return found[0] if found else _position(pool_id, user_id, PositionState(), 0, None)

    def positions(self, pool_id: str, *, after: str | None, limit: int) -> dict[str, Any]:
        """All positions of a pool in user order; the cursor is a user id."""
        with transaction(self._sessions) as session:
            found = _positions(session, pool_id, RewardPosition.user_id > (after or ""), limit=limit + 1)
        return page(found, limit, _cursor)

    def events(
        self, pool_id: str, *, after: int, limit: int, kind: str | None = None, user_id: str | None = None
    ) -> dict[str, Any]:
        """The log after a sequence number, oldest first; `next` is always the last number seen."""
        statement = select(RewardEvent).where(RewardEvent.pool_id == pool_id, RewardEvent.id > after)
        if kind is not None:
            statement = statement.where(RewardEvent.kind == kind)
        if user_id is not None:
            statement = statement.where(RewardEvent.user_id == user_id)
        with transaction(self._sessions) as session:
            rows = session.scalars(statement.order_by(RewardEvent.id).limit(limit)).all()
        return {"items": [_event(row) for row in rows], "next": rows[-1].id if rows else after}


def _positions(session: Session, pool_id: str, which: Any, *, limit: int) -> list[dict[str, Any]]:
    """Positions joined with their pool's index, in one statement: a position never meets another moment's index."""
    rows = session.execute(
        select(RewardPosition, RewardPool.acc_reward_per_share)
        .join(RewardPool, RewardPool.pool_id == RewardPosition.pool_id)
        .where(RewardPosition.pool_id == pool_id, which)
        .order_by(RewardPosition.user_id)
        .limit(limit)
    ).all()
    return [
        _position(pool_id, row.user_id, position_state(row), index, format_time(row.updated_at)) for row, index in rows
    ]


def _position(pool_id: str, user_id: str, state: PositionState, index: int, updated_at: str | None) -> dict[str, Any]:
    return {
        "pool_id": pool_id,
        "user_id": user_id,
        "staked_wei": str(state.staked),
        "exiting_wei": str(state.exiting),
        "pending_wei": str(pending_wei(state, index)),
        "claimed_wei": str(state.claimed),
        "reward_debt": str(reward_debt(state)),
        "updated_at": updated_at,
    }


def _cursor(item: Mapping[str, Any]) -> str:
    return str(item["user_id"])


def _event(row: RewardEvent) -> dict[str, Any]:
    return {
        "id": row.id,
        "pool_id": row.pool_id,
        "kind": row.kind,
        "message_id": row.message_id,
        "user_id": row.user_id,
        "staked_delta_wei": str(row.staked_delta_wei),
        "exiting_delta_wei": str(row.exiting_delta_wei),
        "claimed_wei": str(row.claimed_wei),
        "new_rewards_wei": _text(row.new_rewards_wei),
        "fee_wei": _text(row.fee_wei),
        "distributed_wei": _text(row.distributed_wei),
        "parked_wei": _text(row.parked_wei),
        "weight_wei": _text(row.weight_wei),
        "source": row.source,
        "acc_reward_per_share": str(row.acc_reward_per_share),
        "created_at": time_text(row.created_at),
    }


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
