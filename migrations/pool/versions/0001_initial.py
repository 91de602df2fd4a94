"""Requests, batches, the walk and their flows.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import SignedWeiColumn, WeiColumn
from migrations import guards
from migrations.domains import CREATE, DROP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
IMMUTABLE = ("request_events", "flow_events", "protocol_metrics")


def _flow_columns() -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", JSONB),
        sa.Column("context", JSONB, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("flow_version", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("next_run_at", TIME),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("last_error", sa.Text),
        sa.Column("lease_token", sa.Text),
        sa.Column("lease_until", TIME),
        sa.Column("hinted_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
    ]


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("request_count", sa.Integer, nullable=False),
        sa.Column("try_number", sa.Integer, nullable=False, server_default=sa.text("1")),
        *_flow_columns(),
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("amount_wei", WeiColumn()),
        sa.Column("settled_wei", SignedWeiColumn()),
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id")),
        sa.Column("queued_at", TIME),
        sa.Column("eligible_at", TIME),
        sa.Column("intent", sa.Text),
        *_flow_columns(),
    )
    op.create_table(
        "request_events",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", JSONB),
        sa.Column("amount_wei", WeiColumn()),
        sa.Column("settled_wei", SignedWeiColumn()),
        sa.Column("batch_id", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    counter = op.create_table(
        "feed_counter",
        sa.Column(
            "id", sa.Boolean, sa.CheckConstraint("id", name="one_row"), primary_key=True, server_default=sa.true()
        ),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counter, [{"id": True, "last_sequence": 0}])
    op.create_table(
        "flow_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("detail", JSONB),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_table(
        "batch_transactions",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("tx_hash", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_table(
        "withdrawals",
        sa.Column("withdrawal_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("claim_batch_id", sa.Text, sa.ForeignKey("batches.id")),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("shares", WeiColumn(), nullable=False),
        sa.Column("paid_wei", WeiColumn()),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_table(
        "walks",
        sa.Column("id", sa.Text, primary_key=True, comment="pool_id"),
        sa.Column("cursor_block", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("cursor_log_index", sa.BigInteger, nullable=False, server_default=sa.text("-1")),
        sa.Column("cursor_block_hash", sa.Text),
        sa.Column("operator_shares", WeiColumn(), nullable=False, server_default=sa.text("0")),
        sa.Column("submitted_wei", WeiColumn(), nullable=False, server_default=sa.text("0")),
        sa.Column("requested_wei", WeiColumn(), nullable=False, server_default=sa.text("0")),
        sa.Column("rewards_wei", SignedWeiColumn(), nullable=False, server_default=sa.text("0")),
        sa.Column("donated_wei", WeiColumn(), nullable=False, server_default=sa.text("0")),
        sa.Column("dust_wei", SignedWeiColumn(), nullable=False, server_default=sa.text("0")),
        sa.Column("operations_since_dust", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("reward_event_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("gas_cursor", sa.Text),
        sa.Column("reconciliation_wanted", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("batches_paused", JSONB),
        *_flow_columns(),
    )
    op.create_table(
        "reward_cuts",
        sa.Column("event_message_id", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
    )
    op.create_table(
        "protocol_metrics",
        sa.Column("pool_id", sa.Text, primary_key=True),
        sa.Column("block_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("total_pooled_ether_wei", WeiColumn(), nullable=False),
        sa.Column("total_shares", WeiColumn(), nullable=False),
        sa.Column("share_rate", WeiColumn(), nullable=False),
        sa.Column("delta_wei", SignedWeiColumn()),
        sa.Column("reward_wei", SignedWeiColumn(), nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_table(
        "user_lanes",
        sa.Column("pool_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("held_until", TIME, nullable=False),
    )
    op.create_table(
        "schedule_fires",
        sa.Column("schedule", sa.Text, primary_key=True),
        sa.Column("fire_at", TIME, primary_key=True),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    _create_indexes()
    op.execute(guards.CREATE)
    for table in IMMUTABLE:
        for statement in guards.append_only(table):
            op.execute(statement)


def _create_indexes() -> None:
    due = sa.text("next_run_at IS NOT NULL")
    op.create_index("ix_batches_due", "batches", ["next_run_at"], postgresql_where=due)
    still_open = sa.text("status NOT IN ('completed', 'failed')")
    op.create_index("ix_batches_open", "batches", ["pool_id", "kind"], postgresql_where=still_open)
    op.create_index("ix_requests_due", "requests", ["next_run_at"], postgresql_where=due)
    queued = sa.text("status = 'queued'")
    op.create_index("ix_requests_queue", "requests", ["pool_id", "kind", "queued_at", "id"], postgresql_where=queued)
    op.create_index("ix_requests_user", "requests", ["user_id", "id"])
    op.create_index("ix_requests_batch", "requests", ["batch_id"], postgresql_where=sa.text("batch_id IS NOT NULL"))
    op.create_index("ix_request_events_request", "request_events", ["request_id", "sequence"])
    op.create_index("ix_flow_events_subject", "flow_events", ["subject", "subject_id", "id"])
    op.create_index("ix_batch_transactions_batch", "batch_transactions", ["batch_id"])
    op.create_index("ix_batch_transactions_hash", "batch_transactions", ["tx_hash"])
    op.create_index("ix_withdrawals_request", "withdrawals", ["request_id"])
    unpaid = sa.text("paid_wei IS NULL")
    op.create_index("ix_withdrawals_open", "withdrawals", ["pool_id"], postgresql_where=unpaid)


def downgrade() -> None:
    for table in (
        "schedule_fires", "user_lanes", "protocol_metrics", "reward_cuts", "walks", "withdrawals", "batch_transactions",
        "flow_events", "feed_counter", "request_events", "requests", "batches",
    ):  # fmt: skip
        op.drop_table(table)
    op.execute(guards.DROP)
    for statement in DROP:
        op.execute(statement)
