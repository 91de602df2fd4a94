"""The table of the audit log; see `apps.common.audit_log`."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Identity, Index, SmallInteger, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from apps.common.bodies import JsonObject


class AuditEntryMixin:
    """Its columns. `attempt_id` is the `id` of the attempt that an entry tells the end of. `asked` is the body, its secrets
    blotted out. `before` and `after` are the fields that changed, by table and key.
    """

    __tablename__ = "audit_log"

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Index, ...]:  # noqa: N805  # a class method, as SQLAlchemy has it
        return (Index("ix_audit_log_subject", "subject", "id"), Index("ix_audit_log_who", "who", "id"))

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    attempt_id: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    who: Mapped[str] = mapped_column(Text)
    what: Mapped[str] = mapped_column(Text)
    subject: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    status: Mapped[int | None] = mapped_column(SmallInteger)
    code: Mapped[str | None] = mapped_column(Text)
    asked: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    before: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    after: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
