"""ETH that came to custody, by its transactions, and which of them the ledger's movements name.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import WeiColumn

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "arrival_cursor",
        sa.Column("id", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("start_block", sa.BigInteger, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("movements", JSONB, nullable=False, server_default=sa.text("'{}'")),
    )
    op.create_table(
        "arrivals",
        sa.Column("tx_hash", sa.Text, primary_key=True),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("transaction_index", sa.Integer, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("posted_at", TIME),
    )
    place = ["block_number", "transaction_index"]
    op.create_index("uq_arrivals_place", "arrivals", place, unique=True)
    op.create_index("ix_arrivals_unposted", "arrivals", place, postgresql_where=sa.text("posted_at IS NULL"))
    op.create_table(
        "posted_deposits",
        sa.Column("tx_hash", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("posted_at", TIME, nullable=False),
    )
    op.create_index("ix_posted_deposits_message", "posted_deposits", ["message_id"])


def downgrade() -> None:
    for table in ("posted_deposits", "arrivals", "arrival_cursor"):
        op.drop_table(table)
