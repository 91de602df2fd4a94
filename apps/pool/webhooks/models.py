"""Tables of webhooks: endpoints, what is to be sent to each, and every sending.

An endpoint is a flow (`apps.flow`): its lease makes one worker at a time send to it. Its row is locked before any of its
deliveries, everywhere.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from apps.clients.shapes.pool_states import DeliveryStatus, WebhookStatus
from apps.flow.row import FlowMixin, Reason
from apps.pool.base import JSON_OR_NULL, TIME, Base, FlowEvent

_PENDING = f"status = '{DeliveryStatus.PENDING}'"


class Webhook(FlowMixin, Base):
    """An endpoint that events are sent to.

    `sealed_secret` signs, and until `old_secret_until` so does `sealed_old_secret`; both are encrypted. `cursor`: up to which
    sequence number the feed has been turned into deliveries. `wakes` counts whatever gave it something to do, so that a
    worker that is at work on it sees that something came. `failures`: tries in a row that failed; nothing is sent before
    `paused_until` because of them.
    """

    subject = "webhook"
    history = FlowEvent
    __tablename__ = "webhooks"
    __table_args__ = (
        Index("ix_webhooks_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
        CheckConstraint(f"status IN ({', '.join(repr(str(status)) for status in WebhookStatus)})", name="status_known"),
    )

    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    url: Mapped[str] = mapped_column(Text)
    types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    sealed_secret: Mapped[str] = mapped_column(Text)
    sealed_old_secret: Mapped[str | None] = mapped_column(Text)
    old_secret_until: Mapped[datetime | None] = mapped_column(TIME)
    cursor: Mapped[int] = mapped_column(BigInteger)
    wakes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    paused_until: Mapped[datetime | None] = mapped_column(TIME)


class WebhookCall(Base):
    """What was asked of an endpoint once, by its message_id: a test, with the delivery that it made; a replay; a rotation.
    Immutable."""

    __tablename__ = "webhook_calls"

    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    body: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    delivery_id: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class WebhookDelivery(Base):
    """An event on its way to an endpoint; of a test, `sequence` and `request_id` are null.

    `due_at`: when it is to be sent. Null once it has ended, and for as long as an earlier event of the same request is
    pending there. `pending_since`: since when it is to be sent, which a replay begins anew.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "sequence"),
        Index(
            "ix_webhook_deliveries_due", "webhook_id", "due_at", "sequence", postgresql_where=text("due_at IS NOT NULL")
        ),
        Index("ix_webhook_deliveries_pending", "webhook_id", "request_id", "sequence", postgresql_where=text(_PENDING)),
        Index("ix_webhook_deliveries_list", "webhook_id", "status", "id"),
        CheckConstraint(
            f"status IN ({', '.join(repr(str(status)) for status in DeliveryStatus)})", name="status_known"
        ),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    sequence: Mapped[int | None] = mapped_column(ForeignKey("request_events.sequence"))
    request_id: Mapped[str | None] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default=text(f"'{DeliveryStatus.PENDING}'"))
    attempt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    due_at: Mapped[datetime | None] = mapped_column(TIME)
    pending_since: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
    delivered_at: Mapped[datetime | None] = mapped_column(TIME)


class WebhookAttempt(Base):
    """One sending of a delivery: when it began, how long it took, and what came of it."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (Index("ix_webhook_attempts_delivery", "delivery_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(TIME)
    duration_ms: Mapped[int] = mapped_column(Integer)
    answer_status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[Reason | None] = mapped_column(JSON_OR_NULL)
