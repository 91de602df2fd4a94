"""Reading and writing the index: locks, rows to states and back, and a piece of a loss settled by one statement."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, Select, TextClause, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from apps.common.arrays import array
from apps.common.database import Sessions, one_of, transaction
from apps.common.wei import exact_int
from apps.rewards import index_math
from apps.rewards.errors import AmountOutOfRange
from apps.rewards.index_math import Claimed, P, PoolState, PositionState
from apps.rewards.models import RewardEvent, RewardPool, RewardPosition

_OUT_OF_RANGE = {"23514", "22003"}  # a domain's CHECK; numeric overflow
# A scan or an audit looks at every row of a pool in one statement: minutes for millions, not the usual seconds.
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
class Settling:
    """A loss that is being settled into all positions: how its `settle` events are named (`prefix` and a number), how
    many there are, and the user up to whom all positions were looked at; `after` is empty before the first."""

    prefix: str
    events: int = 0
    after: str = ""


@dataclass(frozen=True)
class HeldPool:
    """A pool whose row is locked: its numbers, the loss that is being settled, and what limits its next loss.

    No position's `index_math.standing` is below `lowest`. None says that this is not known: a scan tells.
    """

    pool_id: str
    state: PoolState
    settling: Settling | None = None
    lowest: int | None = None


@dataclass(frozen=True)
class Piece:
    """What settling some positions changed: events, the sum of whole wei, fractions that emptied positions gave back,
    and how far it came."""

    events: int
    claimed: int
    returned_scaled: int
    seen: int
    last: str | None


def statement_of(name: str) -> TextClause:
    """A statement that stands in a file of its own, ``sql/<name>.sql``; its values are named ``:so``."""
    return text((Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8"))


def lock_pool(session: Session, pool_id: str) -> HeldPool:
    """Lock the pool's row, making it at first use. Everything that writes the index passes through here first."""
    statement = select(RewardPool).where(RewardPool.pool_id == pool_id).with_for_update()
    row = session.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if row is None:
        session.execute(insert(RewardPool).values(pool_id=pool_id).on_conflict_do_nothing())
        row = session.scalars(statement.execution_options(populate_existing=True)).one()
    return _held(session, row)


def look_at_pool(session: Session, pool_id: str) -> HeldPool | None:
    """The pool as it is, without a lock."""
    row = session.get(RewardPool, pool_id)
    return None if row is None else _held(session, row)


def _held(session: Session, row: RewardPool) -> HeldPool:
    lowest = row.lowest_standing
    # Every change of a position has an event. One that did not note its standing, such as the release before makes
    # them, shows by its number.
    if lowest is not None and session.scalar(newest_event(row.pool_id)) != row.standing_event_id:
        lowest = None
    return HeldPool(row.pool_id, pool_state(row), settling_of(row), lowest)


def settling_of(row: RewardPool) -> Settling | None:
    if row.settling_prefix is None:
        return None
    return Settling(row.settling_prefix, row.settling_events, row.settling_after)


def is_settling(sessions: Sessions, pool_id: str) -> bool:
    """Whether a loss of this pool is being settled; locks nothing."""
    with transaction(sessions) as session:
        return session.scalar(select(RewardPool.settling_prefix).where(RewardPool.pool_id == pool_id)) is not None


def save(session: Session, held: HeldPool, positions: Mapping[str, PositionState] | None = None) -> None:
    """Write a pool and positions, new or known, that were locked before; the events of it are inserted already."""
    lowest = held.lowest
    if positions:
        columns = {name: array(getattr(state, name) for state in positions.values()) for name in _POSITION_COLUMNS}
        session.execute(_UPSERT_POSITIONS, {"pool_id": held.pool_id, "user_ids": array(positions), **columns})
        written = index_math.lowest_standing(positions.values())
        if lowest is not None and written is not None:
            lowest = min(lowest, written)
    settling = held.settling
    statement = update(RewardPool).where(RewardPool.pool_id == held.pool_id)
    session.execute(
        statement.values(
            **{column: getattr(held.state, name) for name, column in _POOL_COLUMNS.items()},
            settling_prefix=settling.prefix if settling else None,
            settling_events=settling.events if settling else 0,
            settling_after=settling.after if settling else "",
            lowest_standing=lowest,
            standing_event_id=newest_event(held.pool_id).scalar_subquery(),
            updated_at=func.clock_timestamp(),
        ).execution_options(synchronize_session=False)
    )


def newest_event(pool_id: str) -> Select[Any]:
    return select(func.coalesce(func.max(RewardEvent.id), 0)).where(RewardEvent.pool_id == pool_id)


def lock_positions(session: Session, pool_id: str, user_ids: Iterable[str]) -> dict[str, PositionState]:
    """Lock the positions of these users, in user order; users without one are given an empty state."""
    wanted = sorted(set(user_ids))
    # Plain rows, not entities: there may be ten thousand, and entities cost several times as much.
    table = RewardPosition.__table__
    rows = session.execute(
        select(table)
        .where(RewardPosition.pool_id == pool_id, one_of(RewardPosition.user_id, wanted))
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
        "message_ids": array(one.message_id for one in moved),
        "user_ids": array(one.user_id for one in moved),
        "staked": array(one.staked_delta for one in moved),
        "exiting": array(one.exiting_delta for one in moved),
        "claimed": array(one.claimed for one in moved),
    }
    return {row.message_id: row.created_at for row in session.execute(_INSERT_MOVED, given)}


def insert_settlements(session: Session, held: HeldPool, settling: Settling, moved: Mapping[str, Claimed]) -> None:
    """Append one `settle` event for each user, numbered on from those of the loss there are; the pool's row is
    locked."""
    numbered = enumerate(moved.items(), settling.events + 1)
    events = [
        Moved(f"{settling.prefix}{number}", user_id, each.staked_delta, each.exiting_delta, each.claimed)
        for number, (user_id, each) in numbered
    ]
    insert_moved(session, held.pool_id, "settle", held.state.index, events)


_SETTLE_PIECE = statement_of("settle_piece")


def settle_piece(session: Session, held: HeldPool, settling: Settling, most: int) -> Piece:
    """Claim for the next `most` positions, each with whole wei pending by one `settle` event, in one statement."""
    # A join by hashing would read the whole table for each piece.
    session.execute(text("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"))
    values = {"pool_id": held.pool_id, "index": held.state.index, "p": P, "most": most, **asdict(settling)}
    row = session.execute(_SETTLE_PIECE, values).one()
    return Piece(row.events, exact_int(row.claimed), exact_int(row.returned_scaled), row.seen, row.last)


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
