"""Tables of the ledger.

Lock order, everywhere: message keys (sorted), movements about to be reversed (by id), the advisory lock for new balances
(shared), balances (sorted by pool_id, user_id), the mark that announces new ids; after that nothing is waited for.
"""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Numeric,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.audit_entries import AuditEntryMixin
from apps.common.database import new_metadata
from apps.common.stretches import StretchMixin
from apps.common.wei import ScaledColumn, WeiColumn
from apps.ledger.kinds import BUCKETS

_KEY = Text(collation="C")
_AFTER = [f"{name}_wei" for name in BUCKETS]
_BOOKS = ["id", "pool_id", "user_id", *_AFTER]
_BOOKS_KEY = [f"movements.{name}" for name in _BOOKS]


class Base(DeclarativeBase):
    metadata = new_metadata()


class MessageKey(Base):
    """Every message_id ever used: by a movement, or by a refusal. Never updated or deleted."""

    __tablename__ = "message_keys"

    message_id: Mapped[str] = mapped_column(_KEY, primary_key=True)


class Refusal(Base):
    """A refused request and why; final for its message_id. Never updated or deleted."""

    __tablename__ = "refusals"

    message_id: Mapped[str] = mapped_column(_KEY, ForeignKey("message_keys.message_id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(_KEY)
    user_id: Mapped[str | None] = mapped_column(_KEY)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    reference: Mapped[str | None] = mapped_column(_KEY)
    code: Mapped[str] = mapped_column(Text)
    bucket: Mapped[str | None] = mapped_column(Text)
    missing_wei: Mapped[int | None] = mapped_column(WeiColumn)
    request_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


def _before(bucket: str) -> Computed:
    moved = f"CASE '{bucket}' WHEN source THEN amount_wei WHEN target THEN -amount_wei ELSE 0 END"
    return Computed(f"{bucket}_wei + {moved}", persisted=True)


class Movement(Base):
    """A movement of wei from one account to another, with the user's buckets after it. Never updated or deleted.

    The movements of a user are a chain: what the buckets held before (computed from after and amount) must be what they
    held after the movement `previous_id`, which no other movement follows; the first starts from zeros. With the key of
    `balances` to the chain's head, a balance is the sum of its movements or does not enter the database.
    """

    __tablename__ = "movements"
    __table_args__ = (
        Index("ix_movements_user", "pool_id", "user_id", "id"),
        Index("ix_movements_kind", "pool_id", "kind", "id"),
        Index(
            "uq_movements_first",
            "pool_id",
            "user_id",
            unique=True,
            postgresql_where=text("previous_id IS NULL AND user_id IS NOT NULL"),
        ),
        Index("uq_movements_reversed", "reference", unique=True, postgresql_where=text("kind = 'reversal'")),
        UniqueConstraint(*_BOOKS, name="uq_movements_books"),
        ForeignKeyConstraint(
            ["previous_id", "pool_id", "user_id", *(f"{name}_before" for name in BUCKETS)],
            _BOOKS_KEY,
            name="fk_movements_chain",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    message_id: Mapped[str] = mapped_column(_KEY, unique=True)
    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(_KEY)
    user_id: Mapped[str | None] = mapped_column(_KEY)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    reference: Mapped[str | None] = mapped_column(_KEY)
    source: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    previous_id: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    available_wei: Mapped[int | None] = mapped_column(WeiColumn)
    reserved_wei: Mapped[int | None] = mapped_column(WeiColumn)
    staked_wei: Mapped[int | None] = mapped_column(WeiColumn)
    unstaking_wei: Mapped[int | None] = mapped_column(WeiColumn)
    available_before: Mapped[Decimal | None] = mapped_column(Numeric, _before("available"))
    reserved_before: Mapped[Decimal | None] = mapped_column(Numeric, _before("reserved"))
    staked_before: Mapped[Decimal | None] = mapped_column(Numeric, _before("staked"))
    unstaking_before: Mapped[Decimal | None] = mapped_column(Numeric, _before("unstaking"))


class Balance(Base):
    """What a user has in a pool: the buckets after the last movement of the user's chain, to which a key ties them."""

    __tablename__ = "balances"
    __table_args__ = (
        ForeignKeyConstraint(["last_movement_id", "pool_id", "user_id", *_AFTER], _BOOKS_KEY, name="fk_balances_head"),
    )

    pool_id: Mapped[str] = mapped_column(_KEY, primary_key=True)
    user_id: Mapped[str] = mapped_column(_KEY, primary_key=True)
    available_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    reserved_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    staked_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    unstaking_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    last_movement_id: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class SystemCheckpoint(Base):
    """What a system account held after all movements up to an id, as an audit found it. Never updated or deleted.

    System accounts have no balance row: two thousand deposits would queue behind one. Their balance is the newest
    checkpoint and the movements since.
    """

    __tablename__ = "system_checkpoints"

    pool_id: Mapped[str] = mapped_column(_KEY, primary_key=True)
    through_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account: Mapped[str] = mapped_column(_KEY, primary_key=True)
    sum_wei: Mapped[int] = mapped_column(ScaledColumn)


class AuditStretch(StretchMixin, Base):
    pass


class Audit(Base):
    """A recomputation of the books from movements, and what it found. Never updated or deleted.

    A clean one says up to which movement it is so; the next one of what is new starts there. `complete` is one that read
    everything. Audits of a release that knew no others name no pool, and nothing starts from them.
    """

    __tablename__ = "audits"
    __table_args__ = (Index("ix_audits_pool_id_ok", "pool_id", "ok", "complete", "created_at"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    pool_id: Mapped[str | None] = mapped_column(_KEY)
    complete: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    through_id: Mapped[int | None] = mapped_column(BigInteger)
    ok: Mapped[bool] = mapped_column(Boolean)
    differences: Mapped[list[dict[str, str]]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())


class AuditEntry(AuditEntryMixin, Base):
    """What one of ops asked for, or what came of it. Never changed, never deleted; see `apps.common.audit_log`."""
