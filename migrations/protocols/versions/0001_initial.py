"""Share history, scan cursor, reconciliation runs, message keys.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import SignedWeiColumn, WeiColumn
from migrations.domains import CREATE, DROP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    op.create_table(
        "message_keys",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("request", JSONB, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("response", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "scan_cursor",
        sa.Column(
            "id", sa.Boolean, sa.CheckConstraint("id", name="one_row"), primary_key=True, server_default=sa.true()
        ),
        sa.Column("start_block", sa.BigInteger, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
    )
    op.create_table(
        "share_events",
        sa.Column("block_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("log_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("tx_hash", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("shares", WeiColumn()),
        sa.Column("amount_wei", WeiColumn()),
        sa.Column("withdrawal_id", sa.BigInteger),
        sa.Column("reward_wei", SignedWeiColumn()),
        sa.Column("rebase", JSONB),
    )
    op.create_table(
        "reconciliation_runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.Text),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reason", JSONB),
        sa.Column("lines", JSONB, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
    )


def downgrade() -> None:
    for table in ("reconciliation_runs", "share_events", "scan_cursor", "message_keys"):
        op.drop_table(table)
    for statement in DROP:
        op.execute(statement)
