"""Tables of protocols. Lock order: message keys, then the scan cursor; the arrival cursor, then arrivals and posted deposits."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Dialect, Index, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from apps.clients.shapes.history import HistoryItem, RebaseTotals
from apps.clients.shapes.reconciliation import ReconciliationLine
from apps.common.audit_entries import AuditEntryMixin
from apps.common.database import new_metadata
from apps.common.idempotency import MessageKeyMixin
from apps.common.shapes import dump, load
from apps.common.wei import SignedWeiColumn, WeiColumn


class Base(DeclarativeBase):
    metadata = new_metadata()


class ShapeColumn(TypeDecorator[Any]):
    """A shape at rest, as the JSON that it has on the wire."""

    impl = JSONB
    cache_ok = True

    def __init__(self, shape: type[Any]) -> None:
        super().__init__(none_as_null=True)
        self.shape = shape

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else dump(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else load(self.shape, value)


class ShapesColumn(ShapeColumn):
    """A list of one shape at rest."""

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return [dump(one) for one in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return [load(self.shape, one) for one in value]


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

    def clear_doubt(self) -> None:
        """The nodes show again what is stored."""
        self.doubt, self.doubt_detail, self.doubt_block, self.doubt_count = None, None, None, 0


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
    rebase: Mapped[RebaseTotals | None] = mapped_column(ShapeColumn(RebaseTotals))


class Rescan(Base):
    """A part of the history that ops had read again: what that added and removed. Never changed."""

    __tablename__ = "rescans"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    from_block: Mapped[int] = mapped_column(BigInteger)
    to_block: Mapped[int] = mapped_column(BigInteger)
    to_block_hash: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(Text)
    added: Mapped[list[HistoryItem]] = mapped_column(ShapesColumn(HistoryItem))
    removed: Mapped[list[HistoryItem]] = mapped_column(ShapesColumn(HistoryItem))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class ShareDifference(Base):
    """Shares of the operator that came (or went, below zero) in a block without a log, as ops have said. Never changed."""

    __tablename__ = "share_differences"

    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    shares: Mapped[int] = mapped_column(SignedWeiColumn)
    reason: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class ArrivalCursor(Base):
    """How far the chain has been read for ETH that came to custody, and the hash to notice a reorganization by; and, of each
    kind of movement that may name such a transaction, the last one that was read from the ledger."""

    __tablename__ = "arrival_cursor"

    id: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    start_block: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(Text)
    movements: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))


class Arrival(Base):
    """A transaction at or below the money horizon that sent ETH to custody. `posted_at`: when a movement of the ledger that
    names its hash was made; null while none was."""

    __tablename__ = "arrivals"
    __table_args__ = (
        Index("uq_arrivals_place", "block_number", "transaction_index", unique=True),
        Index(
            "ix_arrivals_unposted",
            "block_number",
            "transaction_index",
            postgresql_where=text("posted_at IS NULL"),
        ),
    )

    tx_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger)
    transaction_index: Mapped[int] = mapped_column(Integer)
    block_hash: Mapped[str] = mapped_column(Text)
    sender: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    posted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class PostedDeposit(Base):
    """A transaction's hash that a movement of the ledger names, and which movement. Gone again once that one is reversed."""

    __tablename__ = "posted_deposits"
    __table_args__ = (Index("ix_posted_deposits_message", "message_id"),)

    tx_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text)
    posted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ReconciliationRun(Base):
    """A comparison of books and chain at one block. `verdict` is ``ok`` or ``drift``."""

    __tablename__ = "reconciliation_runs"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    block_hash: Mapped[str | None] = mapped_column(Text)
    verdict: Mapped[str] = mapped_column(Text)
    # Always empty. It stays until a release after this one, as the release before this one still reads it.
    reason: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    lines: Mapped[list[ReconciliationLine]] = mapped_column(ShapesColumn(ReconciliationLine))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class AuditEntry(AuditEntryMixin, Base):
    """What one of ops asked for, or what came of it. Never changed, never deleted; see `apps.common.audit_log`."""
