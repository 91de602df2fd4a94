"""Tables of the walk: where it stands, what ops decide about it, and what its bookings leave behind."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from apps.common.wei import SignedWeiColumn, WeiColumn
from apps.flow.row import FlowMixin, Reason
from apps.pool.base import JSON_OR_NULL, TIME, Base, FlowEvent

# A log index above any: a walk whose cursor stands there has booked the whole block.
WHOLE_BLOCK = 10**9

# A halt as it is kept and shown: its code and detail, and the facts of `apps.pool.walk.halts.FACTS`.
HaltRecord = dict[str, str | int | None]


class Walk(FlowMixin, Base):
    """The one serial lane of a pool through its chain history: where it stands, and the sums it has met so far.

    `refusals`: how often in a row a service has refused the same booking. `closing_*`: the block that is being closed,
    with the step of dust and the snapshot that were decided for it, kept before they are posted.
    """

    subject = "walk"
    history = FlowEvent
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
    batches_paused: Mapped[Reason | None] = mapped_column(JSON_OR_NULL)
    halt: Mapped[HaltRecord | None] = mapped_column(JSON_OR_NULL)
    refusals: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    reward_since_snapshot_wei: Mapped[int] = mapped_column(SignedWeiColumn, server_default=text("0"))
    closing_block: Mapped[int | None] = mapped_column(BigInteger)
    closing_block_hash: Mapped[str | None] = mapped_column(Text)
    closing_step_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    closing_total_pooled_ether_wei: Mapped[int | None] = mapped_column(WeiColumn)
    closing_total_shares: Mapped[int | None] = mapped_column(WeiColumn)
    closing_share_rate: Mapped[int | None] = mapped_column(WeiColumn)


class Resolution(Base):
    """What ops said about a halted walk or a parked batch: who, why, on what evidence, and what the halt was.

    Only its decision changes afterwards: ``proposed`` (a second person is asked for), ``approved``, ``rejected``, and
    ``applied`` once the walk or the batch has acted on it. Never deleted.
    """

    __tablename__ = "resolutions"
    __table_args__ = (Index("ix_resolutions_pool", "pool_id", "status"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    pool_id: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    halt: Mapped[HaltRecord | None] = mapped_column(JSON_OR_NULL)
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
