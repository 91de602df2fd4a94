"""Tables of the pool database: requests, batches, and what their flows need; the walk's are in `apps.pool.walk.models`.

A request, a batch and the walk are flows (`apps.flow`). Lock order everywhere: walk, then batches, then requests (by id),
then lanes of users, then withdrawals. The feed's counter is locked where events are numbered, and nothing of these with it;
then webhooks, then their deliveries.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    Text,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from apps.common.audit_entries import AuditEntryMixin
from apps.common.wei import SignedWeiColumn, WeiColumn
from apps.flow.row import FlowMixin, LaneMixin, ScheduleFireMixin
from apps.pool.base import TIME, Base, FlowEvent
from apps.pool.feed_models import FeedCounter, RequestEvent, UnnumberedEvent
from apps.pool.payouts.models import Deposit, Payout, PayoutAddress, PayoutTransaction
from apps.pool.quotes.models import RequestEstimate
from apps.pool.states import BATCH_TERMINAL, RequestStatus
from apps.pool.users.models import UserHold, UserHoldRelease, UserPreference
from apps.pool.walk.models import WHOLE_BLOCK, CompanyWithdrawal, ProtocolMetric, Resolution, RewardCut, Walk
from apps.pool.webhooks.models import Webhook, WebhookAttempt, WebhookCall, WebhookDelivery

__all__ = [
    "WHOLE_BLOCK",
    "AuditEntry",
    "Base",
    "Batch",
    "BatchElement",
    "BatchTransaction",
    "CompanyWithdrawal",
    "Deposit",
    "FeedCounter",
    "FlowEvent",
    "Payout",
    "PayoutAddress",
    "PayoutTransaction",
    "ProtocolMetric",
    "Request",
    "RequestEstimate",
    "RequestEvent",
    "Resolution",
    "RewardCut",
    "ScheduleFire",
    "UnnumberedEvent",
    "UnsignedTransaction",
    "UserHold",
    "UserHoldRelease",
    "UserLane",
    "UserPreference",
    "Walk",
    "Webhook",
    "WebhookAttempt",
    "WebhookCall",
    "WebhookDelivery",
    "Withdrawal",
    "parked_batches_of",
    "queued_requests",
    "requests_of",
]

# As SQL lists them, in a stated order: an index is compared by the text of its condition.
_ENDS = ", ".join(f"'{status}'" for status in sorted(BATCH_TERMINAL))
# The queue, and what was taken back while it waited for a worker. Not chosen by the status: while a request moves with its
# batch, nothing of it changes that an index knows, so that no index is written.
_WAITING = "batch_id IS NULL AND eligible_at IS NOT NULL"


class Batch(FlowMixin, Base):
    """Requests that share one on-chain transaction (stake, unstake), or NFTs claimed together (claim).

    Of a stake: `funded` once the operator holds the ETH, of which `reused_wei` had come for batches that came to nothing.
    Of an unstake: the number of its present `settlement`, and how many wei the operator's stETH is short of its requests.
    """

    subject = "batch"
    history = FlowEvent
    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
        Index("ix_batches_open", "pool_id", "kind", postgresql_where=text(f"status NOT IN ({_ENDS})")),
    )

    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int] = mapped_column(WeiColumn)
    request_count: Mapped[int] = mapped_column(Integer)
    try_number: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    funded: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    reused_wei: Mapped[int | None] = mapped_column(WeiColumn)
    settlement: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    short_wei: Mapped[int] = mapped_column(WeiColumn, server_default=text("0"))


class Request(FlowMixin, Base):
    """What a user asked for, from POST to its end.

    `reservation` numbers the tries to set an unstake's wei aside. A requeued request counts its `requeues`, and goes into
    batches of `at_most` members where a larger one was refused. `hold_*`: since when (seconds of the database's clock)
    the room of a limit is kept for it, how much is, and how much the last look left; see `flows.fitting`.
    `expected_at`: when Lido probably pays, an estimate that nothing is decided by.
    """

    subject = "request"
    history = FlowEvent
    current_version = 2  # with payouts and deposits; the other kinds are begun as 1, see `apps.pool.opening`
    __tablename__ = "requests"
    __table_args__ = (
        Index("ix_requests_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
        Index(
            "ix_requests_waiting",
            "pool_id",
            "kind",
            "queued_at",
            "id",
            postgresql_where=text(_WAITING),
        ),
        Index("ix_requests_user", "user_id", "id"),
        Index("ix_requests_batch", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
        # Room for the next version of each row beside it, which an index then need not be told of.
        {"postgresql_with": {"fillfactor": "50"}},
    )

    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    kind: Mapped[str] = mapped_column(Text)
    pool_id: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    amount_wei: Mapped[int | None] = mapped_column(WeiColumn)
    settled_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    queued_at: Mapped[datetime | None] = mapped_column(TIME)
    eligible_at: Mapped[datetime | None] = mapped_column(TIME)
    intent: Mapped[str | None] = mapped_column(Text)
    reservation: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    requeues: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    at_most: Mapped[int | None] = mapped_column(Integer)
    hold_since: Mapped[float | None] = mapped_column(Double)
    hold_aside: Mapped[int | None] = mapped_column(WeiColumn)
    hold_left: Mapped[int | None] = mapped_column(WeiColumn)
    expected_at: Mapped[datetime | None] = mapped_column(TIME)


class BatchTransaction(Base):
    """A transaction that a batch gave to the relayer, by its message_id. `block_number`: where the walk has met it; also null
    where a release before this column did."""

    __tablename__ = "batch_transactions"
    __table_args__ = (Index("ix_batch_transactions_batch", "batch_id"), Index("ix_batch_transactions_hash", "tx_hash"))

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    purpose: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    tx_hash: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class UnsignedTransaction(Base):
    """A transaction that a batch asks for, stored before it is sent and never built again: under the same message_id the
    relayer would refuse other calldata. Immutable."""

    __tablename__ = "unsigned_transactions"
    __table_args__ = (Index("ix_unsigned_transactions_batch", "batch_id"),)

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    from_address: Mapped[str] = mapped_column(Text)
    to_address: Mapped[str] = mapped_column(Text)
    data: Mapped[str] = mapped_column(Text)
    value_wei: Mapped[int] = mapped_column(WeiColumn)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class BatchElement(Base):
    """One withdrawal that an unstake batch asks Lido for, at its place in the call, and whose it is. Immutable."""

    __tablename__ = "batch_elements"

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"))
    amount_wei: Mapped[int] = mapped_column(WeiColumn)


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


class UserLane(LaneMixin, Base):
    """At most one money step for each (pool, user) at a time, the members of a batch included."""

    __tablename__ = "user_lanes"

    scope: Mapped[str] = mapped_column("pool_id", Text, primary_key=True)
    name: Mapped[str] = mapped_column("user_id", Text, primary_key=True)


class ScheduleFire(ScheduleFireMixin, Base):
    """One firing of a schedule: two beats at once insert one row."""

    __tablename__ = "schedule_fires"


def queued_requests() -> tuple[ColumnElement[bool], ...]:
    """Which requests are in the queue, as `ix_requests_waiting` finds them."""
    return Request.status == RequestStatus.QUEUED, Request.batch_id.is_(None), Request.eligible_at.is_not(None)


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


class AuditEntry(AuditEntryMixin, Base):
    """What one of ops asked for, or what came of it. Never changed, never deleted; see `apps.common.audit_log`."""
