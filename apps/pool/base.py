"""What the pool's tables share: the declarative base, the history of flows, and columns' types."""

from sqlalchemy import Index
from sqlalchemy.orm import DeclarativeBase

from apps.common.database import new_metadata
from apps.flow.row import JSON_OR_NULL, TIME, FlowEventMixin

__all__ = ["JSON_OR_NULL", "TIME", "Base", "FlowEvent"]


class Base(DeclarativeBase):
    metadata = new_metadata()


class FlowEvent(FlowEventMixin, Base):
    """History of every run of every flow: what Temporal's event history was. Immutable."""

    __tablename__ = "flow_events"
    __table_args__ = (Index("ix_flow_events_subject", "subject", "subject_id", "id"),)
