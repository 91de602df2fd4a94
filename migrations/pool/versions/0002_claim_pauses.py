"""When an NFT whose claim failed is tried again.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("withdrawals", sa.Column("claim_failures", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.add_column("withdrawals", sa.Column("claim_after", sa.DateTime(timezone=True)))
    op.add_column("withdrawals", sa.Column("claim_at_most", sa.Integer))


def downgrade() -> None:
    for name in ("claim_at_most", "claim_after", "claim_failures"):
        op.drop_column("withdrawals", name)
