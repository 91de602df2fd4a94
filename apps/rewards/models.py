"""Tables of the rewards database: the index, the positions, the log both can be rebuilt from, and the audits that do.

Lock order everywhere: message keys (sorted), then the pool row, then positions in user order. Events are inserted only
while the pool row is locked, so that within a pool the order of their ids is the order of their commits, and a reader
who remembers the last id never misses one.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, DateTime, Identity, Index, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.audit_entries import AuditEntryMixin
from apps.common.database import new_metadata
from apps.common.idempotency import MessageKeyMixin
from apps.common.stretches import StretchMixin
from apps.common.wei import ScaledColumn, SignedWeiColumn, WeiColumn

TIME = DateTime(timezone=True)
# Bytes order: the same on every machine, and the same as Python's sort.
NAME = Text(collation="C")


class Base(DeclarativeBase):
    metadata = new_metadata()


class MessageKey(MessageKeyMixin, Base):
    pass


class RewardPool(Base):
    """One row per pool, made at first use; see `index_math.PoolState` for the meaning and units.

    While `settling_prefix` is set, a loss is being settled (`store.Settling`), and a trigger holds the index where it is.
    No position's `index_math.standing` is below `lowest_standing`, as long as the pool's newest event is
    `standing_event_id`; NULL where no scan has told it yet.
    """

    __tablename__ = "reward_pools"
    __table_args__ = (
        CheckConstraint("remainder >= 0", name="remainder"),
        CheckConstraint("fee_remainder BETWEEN 0 AND 9999", name="fee_remainder"),
    )

    pool_id: Mapped[str] = mapped_column(NAME, primary_key=True)
    weight_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    acc_reward_per_share: Mapped[int] = mapped_column(ScaledColumn, server_default=text("0"))
    remainder: Mapped[int] = mapped_column(ScaledColumn, server_default=text("0"))
    accrued_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    claimed_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    parked_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    deficit_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    fee_remainder: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    settling_prefix: Mapped[str | None] = mapped_column(Text)
    settling_events: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    settling_after: Mapped[str] = mapped_column(NAME, server_default=text("''"))
    lowest_standing: Mapped[int | None] = mapped_column(ScaledColumn)
    standing_event_id: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class RewardPosition(Base):
    """One row per (pool, user), made at first use; see `index_math.PositionState`."""

    __tablename__ = "reward_positions"

    pool_id: Mapped[str] = mapped_column(NAME, primary_key=True)
    user_id: Mapped[str] = mapped_column(NAME, primary_key=True)
    staked_wei: Mapped[int] = mapped_column(WeiColumn)
    exiting_wei: Mapped[int] = mapped_column(WeiColumn)
    index_snapshot: Mapped[int] = mapped_column(ScaledColumn)
    pending_scaled: Mapped[int] = mapped_column(ScaledColumn)
    claimed_wei: Mapped[int] = mapped_column(SignedWeiColumn)
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class RewardEvent(Base):
    """One effect, never changed: triggers refuse UPDATE, DELETE and TRUNCATE.

    ``new_rewards_wei = fee_wei + distributed_wei + parked_wei`` (accrual, release; null elsewhere); ``claimed_wei =
    staked_delta_wei + exiting_delta_wei`` (claim, settle); `acc_reward_per_share` is the index afterwards; `weight_wei`
    and `fee_bps` are what the accrual was reckoned with.
    """

    __tablename__ = "reward_events"
    __table_args__ = (
        CheckConstraint("kind IN ('accrual', 'stake_delta', 'claim', 'settle', 'release')", name="kind"),
        Index("uq_reward_events_message_id_kind", "message_id", "kind", unique=True),
        Index("ix_reward_events_pool_id_id", "pool_id", "id"),
        Index("ix_reward_events_pool_id_kind_id", "pool_id", "kind", "id"),
        Index(
            "ix_reward_events_pool_id_user_id_id",
            "pool_id",
            "user_id",
            "id",
            postgresql_where=text("user_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    pool_id: Mapped[str] = mapped_column(NAME)
    kind: Mapped[str] = mapped_column(Text)
    message_id: Mapped[str] = mapped_column(NAME)
    user_id: Mapped[str | None] = mapped_column(NAME)
    staked_delta_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    exiting_delta_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    claimed_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    new_rewards_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    fee_wei: Mapped[int | None] = mapped_column(WeiColumn)
    distributed_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    parked_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    weight_wei: Mapped[int | None] = mapped_column(WeiColumn)
    fee_bps: Mapped[int | None] = mapped_column(Integer)
    source: Mapped[str | None] = mapped_column(Text)
    acc_reward_per_share: Mapped[int] = mapped_column(ScaledColumn)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class RewardAudit(Base):
    """What a replay of the log found; `complete` is one that read all of it, from its beginning."""

    __tablename__ = "reward_audits"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    pool_id: Mapped[str | None] = mapped_column(Text)
    complete: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    ok: Mapped[bool] = mapped_column(Boolean)
    differences: Mapped[list[dict[str, str]]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class AuditCheckpoint(Base):
    """Where a clean audit of a pool ended: its newest event, and the pool's numbers after it (`index_math.PoolState`, as
    decimal strings). The next audit of what is new starts there. Never updated or deleted."""

    __tablename__ = "audit_checkpoints"

    pool_id: Mapped[str] = mapped_column(NAME, primary_key=True)
    through_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    state: Mapped[dict[str, str]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class AuditStretch(StretchMixin, Base):
    pass


class AuditEntry(AuditEntryMixin, Base):
    """What one of ops asked for, or what came of it. Never changed, never deleted; see `apps.common.audit_log`."""
