"""Holds on users, which `open_request` looks at, and what users prefer.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from migrations import guards
from migrations.sql_files import function

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "user_holds",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("actions", ARRAY(sa.Text), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index("ix_user_holds_user", "user_holds", ["pool_id", "user_id"])
    op.create_table(
        "user_hold_releases",
        sa.Column("hold_id", sa.Text, sa.ForeignKey("user_holds.id"), primary_key=True),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    for table in ("user_holds", "user_hold_releases"):
        for statement in guards.append_only(table):
            op.execute(statement)
    op.create_table(
        "user_preferences",
        sa.Column("pool_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("auto_claim_rewards", sa.Boolean, nullable=False),
        sa.Column("auto_claims", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("next_auto_claim_at", TIME),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index(
        "ix_user_preferences_due",
        "user_preferences",
        ["next_auto_claim_at"],
        postgresql_where=sa.text("next_auto_claim_at IS NOT NULL"),
    )
    _replace("0008")


def downgrade() -> None:
    _replace("0006")
    for table in ("user_preferences", "user_hold_releases", "user_holds"):
        op.drop_table(table)


def _replace(at: str) -> None:
    op.execute(function("open_request", at, "pool").replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
