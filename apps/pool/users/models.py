"""Tables about users. Both tables of holds are only added to."""

from datetime import datetime

from sqlalchemy import Boolean, ForeignKey, Index, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from apps.pool.base import TIME, Base


class UserHold(Base):
    """What ops keep a user from, since when and why. It stands until a row of `UserHoldRelease` ends it. Immutable."""

    __tablename__ = "user_holds"
    __table_args__ = (Index("ix_user_holds_user", "pool_id", "user_id"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, unique=True)
    body: Mapped[dict[str, str | None]] = mapped_column(JSONB)
    pool_id: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(Text)
    actions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    by: Mapped[str] = mapped_column(Text)
    why: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class UserHoldRelease(Base):
    """The end of a hold. Immutable."""

    __tablename__ = "user_hold_releases"

    hold_id: Mapped[str] = mapped_column(ForeignKey("user_holds.id"), primary_key=True)
    by: Mapped[str] = mapped_column(Text)
    why: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class UserPreference(Base):
    """What a user prefers. `auto_claims` counts the claims made for the user, and so names the next one, which is due at
    `next_auto_claim_at`."""

    __tablename__ = "user_preferences"
    __table_args__ = (
        Index("ix_user_preferences_due", "next_auto_claim_at", postgresql_where=text("next_auto_claim_at IS NOT NULL")),
    )

    pool_id: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[str] = mapped_column(Text, unique=True)
    auto_claim_rewards: Mapped[bool] = mapped_column(Boolean)
    auto_claims: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_auto_claim_at: Mapped[datetime | None] = mapped_column(TIME)
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
