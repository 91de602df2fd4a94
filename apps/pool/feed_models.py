"""Tables of the feed: events of requests, before and after they have their numbers."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, Identity, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from apps.common.wei import SignedWeiColumn, WeiColumn
from apps.flow.row import Reason
from apps.pool.base import JSON_OR_NULL, TIME, Base


class _EventMixin:
    """What an event tells: the request as its change of status left it. That there is such a request is looked up by a guard
    (`sql/refuse_unknown_request.sql`)."""

    request_id: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    reason: Mapped[Reason | None] = mapped_column(JSON_OR_NULL)
    amount_wei: Mapped[int | None] = mapped_column(WeiColumn)
    settled_wei: Mapped[int | None] = mapped_column(SignedWeiColumn)
    batch_id: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class RequestEvent(_EventMixin, Base):
    """Every status change of every request: the timeline, and the gap-free feed. Immutable."""

    __tablename__ = "request_events"
    __table_args__ = (Index("ix_request_events_request", "request_id", "sequence"),)

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class UnnumberedEvent(_EventMixin, Base):
    """An event that has no number in the feed yet; see `apps.pool.feed`. Later in its request's timeline than all that do."""

    __tablename__ = "unnumbered_events"
    __table_args__ = (Index("ix_unnumbered_events_request", "request_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)


class FeedCounter(Base):
    """The last sequence number given out. Its row lock has events numbered by one caller at a time."""

    __tablename__ = "feed_counter"

    id: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    last_sequence: Mapped[int] = mapped_column(BigInteger)
