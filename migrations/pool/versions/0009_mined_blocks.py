"""In which block the walk has met a batch's transaction.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch_transactions", sa.Column("block_number", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("batch_transactions", "block_number")
