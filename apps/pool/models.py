"""Tables of the pool database: requests, batches, the walk, and what their flows need.

A flow is a row: `FlowMixin` carries the lease, the attempts and the time of its next run. Lock order everywhere:
walk, then batches, then requests (by id), then withdrawals, then the feed counter last.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.database import new_metadata
from apps.common.wei import SignedWeiColumn, WeiColumn

TIME = DateTime(timezone=True)
JSON_OR_NULL = JSONB(none_as_null=True)

# A log index above any: a walk whose cursor stands there has booked the whole block.
WHOLE_BLOCK = 10**9


class Base(DeclarativeBase):
    metadata = new_metadata()


class FlowMixin:
    """Lease, attempts and next run of a flow row. All times are the database's."""

    status: Mapped[str] = mapped_column(Text)
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)
    context: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    flow_version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    next_run_at: Mapped[datetime | None] = mapped_column(TIME)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)
    lease_token: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(TIME)
    hinted_at: Mapped[datetime | None] = mapped_column(TIME)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class Batch(FlowMixin, Base):
    """Requests that share one on-chain transaction (stake, unstake), or NFTs claimed together (claim)."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
        Index("ix_batches_open", "pool_id", "kind", postgresql_where=text("status NOT IN ('completed', 'failed')")),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    request_count: Mapped[int] = mapped_column(Integer)
    try_number: Mapped[int] = mapped_column(Integer, server_default=text("1"))


class Request(FlowMixin, Base):
    """What a user asked for, from POST to its end."""

    __tablename__ = "requests"
    __table_args__ = (
        Index("ix_requests_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
        Index("ix_requests_queue", "pool_id", "kind", "queued_at", "id", postgresql_where=text("status = 'queued'")),
        Index("ix_requests_user", "user_id", "id"),
        Index("ix_requests_batch", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int | None] = mapped_column(WeiColumn)
    settled_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    queued_at: Mapped[datetime | None] = mapped_column(TIME)
    eligible_at: Mapped[datetime | None] = mapped_column(TIME)
    intent: Mapped[str | None] = mapped_column(Text)


class RequestEvent(Base):
    """Every status change of every request: the timeline, and the gap-free feed. Immutable."""

    __tablename__ = "request_events"
    __table_args__ = (Index("ix_request_events_request", "request_id", "sequence"),)

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"))
    status: Mapped[str] = mapped_column(Text)
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)
    amount_wei: Mapped[int | None] = mapped_column(WeiColumn)
    settled_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    batch_id: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class FeedCounter(Base):
    """The last sequence number given out. Its row lock, taken last, makes sequence order the commit order."""

    __tablename__ = "feed_counter"

    id: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    last_sequence: Mapped[int] = mapped_column(BigInteger)


class FlowEvent(Base):
    """History of every run of every flow: what Temporal's event history was. Immutable."""

    __tablename__ = "flow_events"
    __table_args__ = (Index("ix_flow_events_subject", "subject", "subject_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    subject_id: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer)
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class BatchTransaction(Base):
    """A transaction that a batch gave to the relayer, by its message_id."""

    __tablename__ = "batch_transactions"
    __table_args__ = (Index("ix_batch_transactions_batch", "batch_id"), Index("ix_batch_transactions_hash", "tx_hash"))

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    purpose: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class Withdrawal(Base):
    """One withdrawal NFT of the operator, the request it pays, and what it paid.

    A claim that failed is tried again at `claim_after`, later with each of `claim_failures`, and where a larger one was
    refused, with at most `claim_at_most` NFTs together.
    """

    __tablename__ = "withdrawals"
    __table_args__ = (
        Index("ix_withdrawals_request", "request_id"),
        Index("ix_withdrawals_open", "pool_id", postgresql_where=text("paid_wei IS NULL")),
    )

    withdrawal_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    pool_id: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"))
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    claim_batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    shares: Mapped[int] = mapped_column(WeiColumn)
    paid_wei: Mapped[int | None] = mapped_column(WeiColumn)
    claim_failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    claim_after: Mapped[datetime | None] = mapped_column(TIME)
    claim_at_most: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class Walk(FlowMixin, Base):
    """The one serial lane of a pool through its chain history: where it stands, and the sums it has met so far."""

    __tablename__ = "walks"

    id: Mapped[str] = mapped_column(Text, primary_key=True, comment="pool_id")
    cursor_block: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    cursor_log_index: Mapped[int] = mapped_column(BigInteger, server_default=text("-1"))
    cursor_block_hash: Mapped[str | None] = mapped_column(Text)
    operator_shares: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    submitted_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    requested_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    rewards_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    donated_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))
    dust_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    operations_since_dust: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    reward_event_id: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    gas_cursor: Mapped[str | None] = mapped_column(Text)
    reconciliation_wanted: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    batches_paused: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)
    halt: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)


class Resolution(Base):
    """What ops said about a halted walk or a parked batch: who, why, on what evidence, and what the halt was.

    Only its decision changes afterwards: ``proposed`` (a second person is asked for), ``approved``, ``rejected``, and
    ``applied`` once the walk or the batch has acted on it. Never deleted.
    """

    __tablename__ = "resolutions"
    __table_args__ = (Index("ix_resolutions_pool", "pool_id", "status"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    pool_id: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    halt: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    log_index: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    account: Mapped[str | None] = mapped_column(Text)
    effect: Mapped[str | None] = mapped_column(Text)
    gas_cost_wei: Mapped[int | None] = mapped_column(WeiColumn)
    by: Mapped[str] = mapped_column(Text)
    why: Mapped[str] = mapped_column(Text)
    evidence: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    decided_by: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
    decided_at: Mapped[datetime | None] = mapped_column(TIME)
    applied_at: Mapped[datetime | None] = mapped_column(TIME)


class CompanyWithdrawal(Base):
    """A withdrawal NFT that the company asked for by hand: no request's, paid into the company's float."""

    __tablename__ = "company_withdrawals"

    withdrawal_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    pool_id: Mapped[str] = mapped_column(Text)
    resolution_id: Mapped[str] = mapped_column(ForeignKey("resolutions.id"))
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    shares: Mapped[int] = mapped_column(WeiColumn)
    paid_wei: Mapped[int | None] = mapped_column(WeiColumn)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class RewardCut(Base):
    """A loss that a user's staked wei could not bear, taken off a queued unstake; decided once per reward event."""

    __tablename__ = "reward_cuts"

    event_message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"), primary_key=True)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)


class ProtocolMetric(Base):
    """Snapshot of the protocol at a walked block."""

    __tablename__ = "protocol_metrics"

    pool_id: Mapped[str] = mapped_column(Text, primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    block_hash: Mapped[str] = mapped_column(Text)
    total_pooled_ether_wei: Mapped[int] = mapped_column(WeiColumn)
    total_shares: Mapped[int] = mapped_column(WeiColumn)
    share_rate: Mapped[int] = mapped_column(WeiColumn)
    delta_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    reward_wei: Mapped[int] = mapped_column(SignedWeiColumn)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class UserLane(Base):
    """At most one money step per (pool, user) at a time; a lane whose time is up is free again."""

    __tablename__ = "user_lanes"

    pool_id: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    held_until: Mapped[datetime] = mapped_column(TIME)


class ScheduleFire(Base):
    """One firing of a schedule: two beats at once insert one row."""

    __tablename__ = "schedule_fires"

    schedule: Mapped[str] = mapped_column(Text, primary_key=True)
    fire_at: Mapped[datetime] = mapped_column(TIME, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


def requests_of(batch: Batch) -> ColumnElement[bool]:
    """Which requests a batch moves: its own, or for a claim those whose NFTs it claims."""
    if batch.kind != "claim":
        return Request.batch_id == batch.id
    return Request.id.in_(select(Withdrawal.request_id).where(Withdrawal.claim_batch_id == batch.id))


def parked_batches_of(request: Request) -> ColumnElement[bool]:
    """Which batches a request may be parked with: its own, and those that claim its NFTs."""
    claiming = select(Withdrawal.claim_batch_id).where(
        Withdrawal.request_id == request.id, Withdrawal.claim_batch_id.is_not(None)
    )
    return or_(Batch.id == request.batch_id, Batch.id.in_(claiming))
