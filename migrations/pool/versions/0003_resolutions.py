"""What ops decide about a halted walk or a parked batch, and the company's own withdrawals.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import WeiColumn
from migrations import guards

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
# What somebody said is said once; only what became of it is written afterwards.
SAID = (
    "id", "message_id", "body", "pool_id", "action", "halt", "tx_hash", "block_number", "log_index", "batch_id",
    "account", "effect", "gas_cost_wei", "by", "why", "evidence", "created_at",
)  # fmt: skip


def upgrade() -> None:
    op.add_column("walks", sa.Column("halt", JSONB))
    op.create_table(
        "resolutions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("halt", JSONB),
        sa.Column("tx_hash", sa.Text),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("log_index", sa.BigInteger),
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id")),
        sa.Column("account", sa.Text),
        sa.Column("effect", sa.Text),
        sa.Column("gas_cost_wei", WeiColumn()),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("decided_at", TIME),
        sa.Column("applied_at", TIME),
        sa.CheckConstraint("status IN ('proposed', 'approved', 'rejected', 'applied')", name="status_known"),
    )
    op.create_index("ix_resolutions_pool", "resolutions", ["pool_id", "status"])
    op.create_table(
        "company_withdrawals",
        sa.Column("withdrawal_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("resolution_id", sa.Text, sa.ForeignKey("resolutions.id"), nullable=False),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("shares", WeiColumn(), nullable=False),
        sa.Column("paid_wei", WeiColumn()),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    changed = " OR ".join(f'OLD."{name}" IS DISTINCT FROM NEW."{name}"' for name in SAID)
    ended = "OLD.status = 'rejected' OR (OLD.status = 'applied' AND NEW.status <> 'applied')"
    _run(guards.refuse("said_once", "UPDATE", "resolutions", f"FOR EACH ROW WHEN ({changed} OR {ended})"))
    _run(guards.refuse("kept", "DELETE OR TRUNCATE", "resolutions"))


def downgrade() -> None:
    op.drop_table("company_withdrawals")
    op.drop_table("resolutions")
    op.drop_column("walks", "halt")


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
