"""Tables of the relayer. Safety rests on their constraints; locks only save work.

Lock order: messages in order of acceptance, the sums of `relayer.signing.spending_caps`, then the signer. A message owns at
most one nonce of one signer, for life; all its attempts share that nonce, so at most one of them can ever be executed. What
a message asks for, its nonce, its attempts and its history are never changed, and an end is final: triggers see to it.
Which states there are is said in `relayer.store.states`.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.audit_entries import AuditEntryMixin
from apps.common.database import new_metadata
from apps.common.wei import WeiColumn
from relayer.store.states import UNFINISHED

Time = DateTime(timezone=True)


class Base(DeclarativeBase):
    metadata = new_metadata()


class Signer(Base):
    """A key's next nonce. `state`: ``active``; ``draining``: what has a nonce goes on, nothing else gets one;
    ``paused``: nothing is signed or sent; ``quarantined``: another sender used the key, and nothing new is signed until
    what it did is recorded."""

    __tablename__ = "signers"

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    address: Mapped[str] = mapped_column(Text, primary_key=True)
    next_nonce: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class Doubt(Base):
    """What one snapshot of the chain suggested and nothing has confirmed yet, see `relayer.chain.doubts`: seen at `seen` heads,
    the last of them `head`, and absent at `clean` heads since."""

    __tablename__ = "doubts"

    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    evidence: Mapped[dict[str, object]] = mapped_column(JSONB)
    head: Mapped[int] = mapped_column(BigInteger)
    seen: Mapped[int] = mapped_column(Integer)
    clean: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class Message(Base):
    """What a caller asked to be signed and sent, under its `message_id`, and how it stands.

    `request` is the canonical body, for telling a replay from a reuse. `observed_block`: while the message is not
    final, it was certainly in no block up to this one; see `relayer.lifecycle.finalize`. `intent` only asks for an empty
    transaction of the same nonce (``cancel``, ``expire``, ``reject``); the hash that settles decides the outcome.
    """

    __tablename__ = "messages"
    __table_args__ = (
        Index("ix_messages_status", "status", "seq"),
        Index("ix_messages_block", "block_number", postgresql_where=text("block_number IS NOT NULL")),
        Index("ix_messages_unfinished", "seq", postgresql_where=text(
            "status IN (" + ", ".join(f"'{status}'" for status in UNFINISHED) + ")")),
        Index("ix_messages_signed_at", "signed_at"),
        ForeignKeyConstraint(
            ["chain_id", "from_address", "nonce", "message_id"],
            ["slots.chain_id", "slots.address", "slots.nonce", "slots.message_id"],
            name="fk_messages_own_slot", use_alter=True,
        ),
    )  # fmt: skip

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    request: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    purpose: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    reason: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    intent: Mapped[str] = mapped_column(Text, server_default=text("'none'"))
    raise_asked: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    chain_id: Mapped[int] = mapped_column(BigInteger)
    from_address: Mapped[str] = mapped_column(Text)
    to_address: Mapped[str] = mapped_column(Text)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    value_wei: Mapped[int] = mapped_column(WeiColumn)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    deadline: Mapped[datetime | None] = mapped_column(Time)
    nonce: Mapped[int | None] = mapped_column(BigInteger)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    block_hash: Mapped[str | None] = mapped_column(Text)
    observed_block: Mapped[int | None] = mapped_column(BigInteger)
    observed_head: Mapped[int | None] = mapped_column(BigInteger)
    gas_cost_wei: Mapped[int | None] = mapped_column(WeiColumn)
    revert: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    signed_at: Mapped[datetime | None] = mapped_column(Time)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class NonceRow(Base):
    """A nonce of a signer, and the message that owns it for life. `state`: ``open``; ``settled``: one of the message's own
    attempts used it; ``foreign``: an external transaction did. `settled_by`: the hash of what used it."""

    __tablename__ = "slots"
    __table_args__ = (
        ForeignKeyConstraint(["chain_id", "address"], ["signers.chain_id", "signers.address"]),
        UniqueConstraint("chain_id", "address", "nonce", "message_id"),
    )

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    address: Mapped[str] = mapped_column(Text, primary_key=True)
    nonce: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.message_id"), unique=True)
    state: Mapped[str] = mapped_column(Text, server_default=text("'open'"))
    settled_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class Attempt(Base):
    """Signed bytes, stored before they are sent. `kind`: ``payload`` or ``noop``. Fees in wei per gas. `head`: the
    chain's height when it was signed."""

    __tablename__ = "attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["chain_id", "address", "nonce"], ["slots.chain_id", "slots.address", "slots.nonce"]
        ),
        UniqueConstraint("chain_id", "address", "nonce", "number"),
    )  # fmt: skip

    tx_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    address: Mapped[str] = mapped_column(Text)
    nonce: Mapped[int] = mapped_column(BigInteger)
    number: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Text)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    max_fee_per_gas_wei: Mapped[int] = mapped_column(WeiColumn)
    max_priority_fee_per_gas_wei: Mapped[int] = mapped_column(WeiColumn)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    head: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class Send(Base):
    """Evidence that an attempt's bytes were sent to one node; written before it is done, completed with the reply."""

    __tablename__ = "sends"
    __table_args__ = (Index("ix_sends_tx_hash", "tx_hash", "endpoint", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tx_hash: Mapped[str] = mapped_column(ForeignKey("attempts.tx_hash"))
    endpoint: Mapped[int] = mapped_column(Integer)
    head: Mapped[int] = mapped_column(BigInteger)
    reply: Mapped[str | None] = mapped_column(Text)
    reply_text: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None] = mapped_column(Time)


class MessageEvent(Base):
    """What happened to a message, each entry bound to the one before it by its digest."""

    __tablename__ = "message_events"

    message_id: Mapped[str] = mapped_column(ForeignKey("messages.message_id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str] = mapped_column(Text)
    body: Mapped[dict[str, object]] = mapped_column(JSONB)
    previous_digest: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class ExternalTransaction(Base):
    """An external transaction: what used a nonce of a key and is none of the relayer's attempts, as found on the chain at a
    release.

    `tx_hash`, `value_wei`, `data` and `success` are null where no transaction of the key's used the nonce (EIP-7702);
    `to_address` also where a contract was made. `message_id`: the message that owned the nonce, where one did.
    """

    __tablename__ = "foreign_transactions"
    __table_args__ = (ForeignKeyConstraint(["chain_id", "address"], ["signers.chain_id", "signers.address"]),)

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    address: Mapped[str] = mapped_column(Text, primary_key=True)
    nonce: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    block_hash: Mapped[str] = mapped_column(Text)
    to_address: Mapped[str | None] = mapped_column(Text)
    value_wei: Mapped[int | None] = mapped_column(WeiColumn)
    data: Mapped[bytes | None] = mapped_column(LargeBinary)
    success: Mapped[bool | None] = mapped_column(Boolean)
    message_id: Mapped[str | None] = mapped_column(ForeignKey("messages.message_id"))
    found_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class ExternalMatch(Base):
    """Links one external transaction to the one message that it fulfilled (unique both ways)."""

    __tablename__ = "foreign_claims"
    __table_args__ = (
        ForeignKeyConstraint(
            ["chain_id", "address", "nonce"],
            ["foreign_transactions.chain_id", "foreign_transactions.address", "foreign_transactions.nonce"],
        ),
    )

    chain_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    address: Mapped[str] = mapped_column(Text, primary_key=True)
    nonce: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    message_id: Mapped[str] = mapped_column(ForeignKey("messages.message_id"), unique=True)
    claimed_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class Heartbeat(Base):
    """When a periodic task last ran to its end, by the database's clock; an alert fires when it is too old."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    beaten_at: Mapped[datetime] = mapped_column(Time, server_default=func.clock_timestamp())


class AuditEntry(AuditEntryMixin, Base):
    """What one of ops asked for, or what came of it. Never changed, never deleted; see `apps.common.audit_log`."""
