"""When requests were expected to be completed, as far as an estimate was kept."""

from datetime import datetime

from sqlalchemy import ForeignKey, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from apps.pool.base import TIME, Base


class RequestEstimate(Base):
    """The first estimate of a request: what it was told, to be held against what came. Immutable."""

    __tablename__ = "request_estimates"

    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    expected_at: Mapped[datetime] = mapped_column(TIME)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
