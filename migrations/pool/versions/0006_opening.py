"""A request is opened, and its first step closed, by one function each; events of the feed are numbered after their commit.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import SignedWeiColumn, WeiColumn
from migrations import guards
from migrations.sql_files import function

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FUNCTIONS = ("number_events", "open_request", "close_opening")


def upgrade() -> None:
    op.create_table(
        "unnumbered_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", JSONB),
        sa.Column("amount_wei", WeiColumn()),
        sa.Column("settled_wei", SignedWeiColumn()),
        sa.Column("batch_id", sa.Text),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
    )
    op.create_index("ix_unnumbered_events_request", "unnumbered_events", ["request_id", "id"])
    # What an event tells never changes; it leaves this table only for its place in the feed.
    for statement in guards.refuse("unchanged", "UPDATE OR TRUNCATE", "unnumbered_events"):
        op.execute(statement)
    for name in FUNCTIONS:
        op.execute(function(name, revision, "pool"))


def downgrade() -> None:
    op.execute("SELECT number_events(2147483647)")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
    op.drop_table("unnumbered_events")
