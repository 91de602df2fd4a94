"""Tables of payouts and deposits: what a request of either kind knows beside its own row, and the users' address lists.

Locked after requests, an address list before the payouts that go to it; see `apps.pool.models` for the order of the others.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from apps.common.wei import WeiColumn
from apps.pool.base import TIME, Base


class PayoutAddress(Base):
    """An address that a user may be paid at, from `usable_at` until it is removed. Only its removal ever changes; added again
    it is a new row, and waits anew."""

    __tablename__ = "payout_addresses"
    __table_args__ = (
        Index("ix_payout_addresses_user", "user_id", "id"),
        Index(
            "uq_payout_addresses_allowed",
            "user_id",
            "address",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    user_id: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(Text)
    label: Mapped[str | None] = mapped_column(Text)
    usable_at: Mapped[datetime] = mapped_column(TIME)
    removed_at: Mapped[datetime | None] = mapped_column(TIME)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class Payout(Base):
    """What a payout knows beside its request: the payee, and who has a say. Its amount is counted against the day's limits
    unless its request ended without it being paid."""

    __tablename__ = "payouts"
    __table_args__ = (Index("ix_payouts_lately", "pool_id", "created_at"),)

    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"), primary_key=True)
    pool_id: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    to_address: Mapped[str] = mapped_column(Text)
    needs_approval: Mapped[bool] = mapped_column(Boolean)
    asked_by: Mapped[str | None] = mapped_column(Text)
    decided_by: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None] = mapped_column(TIME)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class PayoutTransaction(Base):
    """The one transfer that a payout asks the relayer for, stored before it is sent. From then on nothing but the relayer's
    word on it, or ops, gives the ETH back."""

    __tablename__ = "payout_transactions"
    __table_args__ = (
        Index("uq_payout_transactions_request", "request_id", unique=True),
        Index("uq_payout_transactions_hash", "tx_hash", unique=True, postgresql_where=text("tx_hash IS NOT NULL")),
    )

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("payouts.request_id"))
    from_address: Mapped[str] = mapped_column(Text)
    to_address: Mapped[str] = mapped_column(Text)
    value_wei: Mapped[int] = mapped_column(WeiColumn)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Text)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class Deposit(Base):
    """The transaction that a deposit's request books: one request for each, whoever asks. Immutable."""

    __tablename__ = "deposits"

    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"), primary_key=True)
    tx_hash: Mapped[str] = mapped_column(Text, unique=True)
    sender: Mapped[str] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
