"""Shares that came or went without a log, as somebody has said.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

from apps.common.wei import SignedWeiColumn
from migrations.guards import append_only

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "share_differences",
        sa.Column("block_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("shares", SignedWeiColumn(), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
    )
    for statement in append_only("share_differences"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("share_differences")
