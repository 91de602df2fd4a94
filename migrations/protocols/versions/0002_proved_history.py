"""History that is proved: the shares at the cursor, what is doubted about the chain, hashes of blocks read, rescans.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import WeiColumn
from migrations.guards import CREATE, DROP, append_only

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("scan_cursor", sa.Column("proved_block", sa.BigInteger))
    op.add_column("scan_cursor", sa.Column("proved_shares", WeiColumn()))
    op.add_column("scan_cursor", sa.Column("doubt", sa.Text))
    op.add_column("scan_cursor", sa.Column("doubt_detail", sa.Text))
    op.add_column("scan_cursor", sa.Column("doubt_block", sa.BigInteger))
    op.add_column("scan_cursor", sa.Column("doubt_count", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "scanned_blocks",
        sa.Column("block_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block_hash", sa.Text, nullable=False),
    )
    op.create_table(
        "rescans",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("from_block", sa.BigInteger, nullable=False),
        sa.Column("to_block", sa.BigInteger, nullable=False),
        sa.Column("to_block_hash", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("added", JSONB, nullable=False),
        sa.Column("removed", JSONB, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    for statement in (CREATE, *append_only("rescans")):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("rescans")
    op.execute(DROP)
    op.drop_table("scanned_blocks")
    for column in ("doubt_count", "doubt_block", "doubt_detail", "doubt", "proved_shares", "proved_block"):
        op.drop_column("scan_cursor", column)
