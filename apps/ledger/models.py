"""Tables of the ledger. Lock order: message keys (sorted), then balances (sorted by pool_id, user_id)."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Identity, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.database import new_metadata
from apps.common.idempotency import MessageKeyMixin
from apps.common.wei import WeiColumn


class Base(DeclarativeBase):
    metadata = new_metadata()


class MessageKey(MessageKeyMixin, Base):
    """One row per message_id ever used, with the answer that a replay repeats."""


class Movement(Base):
    """A movement of wei from one account to another. Never updated or deleted: the database refuses."""

    __tablename__ = "movements"
    __table_args__ = (
        Index("ix_movements_user", "pool_id", "user_id", "id"),
        Index("ix_movements_kind", "pool_id", "kind", "id"),
        Index("ix_movements_source", "pool_id", "source", postgresql_include=["amount_wei"]),
        Index("ix_movements_target", "pool_id", "target", postgresql_include=["amount_wei"]),
        Index("uq_movements_reversed", "reference", unique=True, postgresql_where=text("kind = 'reversal'")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    reference: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class Balance(Base):
    """What a user has in a pool, bucket by bucket; the domain refuses a bucket below zero."""

    __tablename__ = "balances"

    pool_id: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    available_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    reserved_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    staked_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    unstaking_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    last_movement_id: Mapped[int | None] = mapped_column(BigInteger)


class Audit(Base):
    """A recomputation of every balance from movements, and what it found."""

    __tablename__ = "audits"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    ok: Mapped[bool] = mapped_column(Boolean)
    differences: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
