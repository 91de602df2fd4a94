"""Reading and writing the index: locks, rows to states and back, and the settlement of a loss as one statement."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, TextClause, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from apps.common.wei import exact_int
from apps.rewards.errors import AmountOutOfRange
from apps.rewards.index_math import P, PoolState, PositionState
from apps.rewards.models import RewardEvent, RewardPool, RewardPosition

_OUT_OF_RANGE = {"23514", "22003"}  # a domain's CHECK; numeric overflow
# A settlement or an audit looks at every row of a pool in one statement: minutes for millions, not the usual seconds.
LONG_STATEMENT_MS = 600_000

_POOL_COLUMNS = {
    "weight": "weight_wei",
    "index": "acc_reward_per_share",
    "remainder": "remainder",
    "accrued": "accrued_wei",
    "claimed": "claimed_wei",
    "parked": "parked_wei",
    "deficit": "deficit_wei",
    "fee_remainder": "fee_remainder",
}
_POSITION_COLUMNS = {
    "staked": "staked_wei",
    "exiting": "exiting_wei",
    "snapshot": "index_snapshot",
    "pending_scaled": "pending_scaled",
    "claimed": "claimed_wei",
}


@dataclass(frozen=True)
class Settlement:
    """What settling a pool changed: rows, the sum of whole wei, and fractions that emptied positions gave back."""

    positions: int
    claimed: int
    returned_scaled: int


def _statement(name: str) -> TextClause:
    """A statement that stands in a file of its own, ``sql/<name>.sql``; its values are named ``:so``."""
    return text((Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8"))


def lock_pool(session: Session, pool_id: str) -> PoolState:
    """Lock the pool's row, making it at first use. Everything that writes the index passes through here first."""
    statement = select(RewardPool).where(RewardPool.pool_id == pool_id).with_for_update()
    row = session.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if row is None:
        session.execute(insert(RewardPool).values(pool_id=pool_id).on_conflict_do_nothing())
        row = session.scalars(statement.execution_options(populate_existing=True)).one()
    return pool_state(row)


def save_pool(session: Session, pool_id: str, state: PoolState) -> None:
    values = {column: getattr(state, name) for name, column in _POOL_COLUMNS.items()}
    statement = update(RewardPool).where(RewardPool.pool_id == pool_id)
    session.execute(
        statement.values(**values, updated_at=func.clock_timestamp()).execution_options(synchronize_session=False)
    )


def lock_positions(session: Session, pool_id: str, user_ids: Iterable[str]) -> dict[str, PositionState]:
    """Lock the positions of these users, in user order; users without one are given an empty state."""
    wanted = sorted(set(user_ids))
    # Plain rows, not entities: there may be ten thousand, and entities cost several times as much.
    table = RewardPosition.__table__
    rows = session.execute(
        select(table)
        .where(RewardPosition.pool_id == pool_id, RewardPosition.user_id == func.any(wanted))
        .order_by(RewardPosition.user_id)
        .with_for_update()
    )
    found = {row.user_id: position_state(row) for row in rows}
    return {user_id: found.get(user_id, PositionState()) for user_id in wanted}


_UPSERT_POSITIONS = text(
    """
    INSERT INTO reward_positions AS p
        (pool_id, user_id, staked_wei, exiting_wei, index_snapshot, pending_scaled, claimed_wei, updated_at)
    SELECT :pool_id, u.*, clock_timestamp()
    FROM unnest(CAST(:user_ids AS text[]), CAST(:staked AS numeric[]), CAST(:exiting AS numeric[]),
                CAST(:snapshot AS numeric[]), CAST(:pending_scaled AS numeric[]), CAST(:claimed AS numeric[])) AS u
    ON CONFLICT (pool_id, user_id) DO UPDATE
    SET staked_wei = excluded.staked_wei, exiting_wei = excluded.exiting_wei,
        index_snapshot = excluded.index_snapshot, pending_scaled = excluded.pending_scaled,
        claimed_wei = excluded.claimed_wei, updated_at = excluded.updated_at
    """
)


def save_positions(session: Session, pool_id: str, states: Mapping[str, PositionState]) -> None:
    """Write positions, new or known, as one statement."""
    columns = {name: [getattr(state, name) for state in states.values()] for name in _POSITION_COLUMNS}
    session.execute(_UPSERT_POSITIONS, {"pool_id": pool_id, "user_ids": list(states), **columns})


def insert_event(session: Session, **values: Any) -> tuple[int, datetime]:
    """Append one event; the pool's row is locked by the caller."""
    statement = insert(RewardEvent).values(**values).returning(RewardEvent.id, RewardEvent.created_at)
    row = session.execute(statement).one()
    return row.id, row.created_at


@dataclass(frozen=True)
class Moved:
    """What an event moved for one user: by how much staked and exiting wei changed, and what of that was pending before."""

    message_id: str
    user_id: str
    staked_delta: int
    exiting_delta: int
    claimed: int = 0


_INSERT_MOVED = text(
    """
    INSERT INTO reward_events
        (pool_id, kind, message_id, user_id, staked_delta_wei, exiting_delta_wei, claimed_wei, acc_reward_per_share)
    SELECT :pool_id, :kind, d.message_id, d.user_id, d.staked, d.exiting, d.claimed, :index
    FROM unnest(CAST(:message_ids AS text[]), CAST(:user_ids AS text[]), CAST(:staked AS numeric[]),
                CAST(:exiting AS numeric[]), CAST(:claimed AS numeric[]))
        WITH ORDINALITY AS d(message_id, user_id, staked, exiting, claimed, n)
    ORDER BY d.n
    RETURNING message_id, created_at
    """
)


def insert_moved(
    session: Session, pool_id: str, kind: str, index: int, moved: Sequence[Moved]
) -> Mapping[str, datetime]:
    """Append one event each, in the given order, as one statement; the pool's row is locked. Returns the time of each by
    its message_id."""
    given = {
        "pool_id": pool_id,
        "kind": kind,
        "index": index,
        "message_ids": [one.message_id for one in moved],
        "user_ids": [one.user_id for one in moved],
        "staked": [one.staked_delta for one in moved],
        "exiting": [one.exiting_delta for one in moved],
        "claimed": [one.claimed for one in moved],
    }
    return {row.message_id: row.created_at for row in session.execute(_INSERT_MOVED, given)}


_BEARABLE_FALL = _statement("bearable_fall")


def bearable_fall(session: Session, pool_id: str, index: int) -> int:
    """By how much the index may fall, by the positions of now; the pool's row is locked, so that they stay as they
    are until the loss is written."""
    allow_long_statements(session)
    return exact_int(session.execute(_BEARABLE_FALL, {"pool_id": pool_id, "index": index, "p": P}).scalar_one())


_SETTLE_ALL = _statement("settle_all")


def settle_all(session: Session, pool_id: str, index: int, prefix: str) -> Settlement:
    """Claim for every position with whole wei pending, in one statement, one `settle` event each, named `prefix` and a number."""
    allow_long_statements(session)
    row = session.execute(_SETTLE_ALL, {"pool_id": pool_id, "index": index, "p": P, "prefix": prefix}).one()
    return Settlement(row.positions, exact_int(row.claimed), exact_int(row.returned_scaled))


def allow_long_statements(session: Session) -> None:
    """For the rest of this transaction."""
    session.execute(text(f"SET LOCAL statement_timeout = {LONG_STATEMENT_MS}"))


def pool_state(row: RewardPool) -> PoolState:
    return PoolState(**{name: getattr(row, column) for name, column in _POOL_COLUMNS.items()})


def position_state(row: RewardPosition | Row[Any]) -> PositionState:
    """From an entity or a plain row."""
    return PositionState(row.staked_wei, row.exiting_wei, row.index_snapshot, row.pending_scaled, row.claimed_wei)


@contextmanager
def amounts_in_range() -> Iterator[None]:
    """Turn a number domain's refusal into `AmountOutOfRange`; the caller's transaction rolls back."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) in _OUT_OF_RANGE:
            raise AmountOutOfRange from error
        raise
