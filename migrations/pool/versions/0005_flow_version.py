"""The version of the steps that a row was begun with, so that a worker of an older release leaves a newer row alone.

Adding a column with a constant default rewrites no table, and the running release neither reads nor needs it.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FLOWS = ("requests", "batches", "walks")


def upgrade() -> None:
    for table in FLOWS:
        op.add_column(table, sa.Column("flow_version", sa.Integer, nullable=False, server_default=sa.text("1")))


def downgrade() -> None:
    for table in FLOWS:
        op.drop_column(table, "flow_version")
