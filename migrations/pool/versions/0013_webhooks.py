"""Webhooks: endpoints, what is to be sent to each, and every sending.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("types", ARRAY(sa.Text), nullable=False),
        sa.Column("sealed_secret", sa.Text, nullable=False),
        sa.Column("sealed_old_secret", sa.Text),
        sa.Column("old_secret_until", TIME),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("wakes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("paused_until", TIME),
        *_flow_columns(),
        sa.CheckConstraint("status IN ('enabled', 'disabled', 'needs_attention', 'deleted')", name="status_known"),
    )
    _index("ix_webhooks_due", "webhooks", ["next_run_at"], "next_run_at IS NOT NULL")
    op.create_table(
        "webhook_calls",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhooks.id"), nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("delivery_id", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhooks.id"), nullable=False),
        sa.Column("sequence", sa.BigInteger, sa.ForeignKey("request_events.sequence")),
        sa.Column("request_id", sa.Text),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False, server_default=sa.text("'pending'")),
        sa.Column("attempt_count", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", TIME),
        sa.Column("pending_since", TIME, nullable=False, server_default=sa.text("now()")),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("delivered_at", TIME),
        sa.UniqueConstraint("webhook_id", "sequence"),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'dead_letter')", name="status_known"),
    )
    _index(
        "ix_webhook_deliveries_due", "webhook_deliveries", ["webhook_id", "due_at", "sequence"], "due_at IS NOT NULL"
    )
    pending = ["webhook_id", "request_id", "sequence"]
    _index("ix_webhook_deliveries_pending", "webhook_deliveries", pending, "status = 'pending'")
    op.create_index("ix_webhook_deliveries_list", "webhook_deliveries", ["webhook_id", "status", "id"])
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("delivery_id", sa.Text, sa.ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("answer_status", sa.Integer),
        sa.Column("error", JSONB),
    )
    op.create_index("ix_webhook_attempts_delivery", "webhook_attempts", ["delivery_id", "id"])


def downgrade() -> None:
    for table in ("webhook_attempts", "webhook_deliveries", "webhook_calls", "webhooks"):
        op.drop_table(table)


def _index(name: str, table: str, columns: list[str], condition: str) -> None:
    op.create_index(name, table, columns, postgresql_where=sa.text(condition))


def _flow_columns() -> list[sa.Column[object]]:
    """As `apps.flow.row.FlowMixin` has them at this revision."""
    return [
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", JSONB),
        sa.Column("parked_status", sa.Text),
        sa.Column("next_run_at", TIME),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("last_error", sa.Text),
        sa.Column("lease_token", sa.Text),
        sa.Column("lease_until", TIME),
        sa.Column("hinted_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
        sa.Column("flow_version", sa.Integer, nullable=False, server_default=sa.text("1")),
    ]
