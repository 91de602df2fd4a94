"""Tables of protocols. Lock order: message keys, then the scan cursor."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.database import new_metadata
from apps.common.idempotency import MessageKeyMixin
from apps.common.wei import SignedWeiColumn, WeiColumn


class Base(DeclarativeBase):
    metadata = new_metadata()


class MessageKey(MessageKeyMixin, Base):
    """One row per message_id ever used."""


class ScanCursor(Base):
    """How far the operator's history has been read from the chain, and the hash to notice a reorganization by.

    `proved_shares` are the operator's at `proved_block`; they count while that is `block_number`. `doubt`: what nodes
    say against the history, `incomplete` or `reorganized`, seen at `doubt_count` horizons, `doubt_block` the last.
    """

    __tablename__ = "scan_cursor"

    id: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    start_block: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(Text)
    proved_block: Mapped[int | None] = mapped_column(BigInteger)
    proved_shares: Mapped[int | None] = mapped_column(WeiColumn)
    doubt: Mapped[str | None] = mapped_column(Text)
    doubt_detail: Mapped[str | None] = mapped_column(Text)
    doubt_block: Mapped[int | None] = mapped_column(BigInteger)
    doubt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class ScannedBlock(Base):
    """The hash of a block that was read, the last ten thousand of them: by it a node on another fork is known."""

    __tablename__ = "scanned_blocks"

    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    block_hash: Mapped[str] = mapped_column(Text)


class ShareEvent(Base):
    """One item of the operator's share history, at or below the money horizon."""

    __tablename__ = "share_events"

    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    log_index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    block_hash: Mapped[str] = mapped_column(Text)
    tx_hash: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    shares: Mapped[int | None] = mapped_column(WeiColumn)
    amount_wei: Mapped[int | None] = mapped_column(WeiColumn)
    withdrawal_id: Mapped[int | None] = mapped_column(BigInteger)
    reward_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    rebase: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class Rescan(Base):
    """A part of the history read again on somebody's word: what that added and removed. Never changed."""

    __tablename__ = "rescans"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    from_block: Mapped[int] = mapped_column(BigInteger)
    to_block: Mapped[int] = mapped_column(BigInteger)
    to_block_hash: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(Text)
    added: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    removed: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class ReconciliationRun(Base):
    """A comparison of books and chain at one block."""

    __tablename__ = "reconciliation_runs"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    block_hash: Mapped[str | None] = mapped_column(Text)
    verdict: Mapped[str] = mapped_column(Text)
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
