"""Audits of what is new: where each clean one ended, and digests of the stretches it read.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations import guards

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NAME = sa.Text(collation="C")


def upgrade() -> None:
    op.add_column("reward_audits", sa.Column("complete", sa.Boolean(), nullable=False, server_default=sa.text("true")))
    op.create_table(
        "audit_checkpoints",
        sa.Column("pool_id", NAME, nullable=False),
        sa.Column("through_id", sa.BigInteger(), nullable=False),
        sa.Column("state", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        sa.PrimaryKeyConstraint("pool_id", "through_id", name="pk_audit_checkpoints"),
    )
    op.create_table(
        "audit_stretches",
        sa.Column("pool_id", NAME, nullable=False),
        sa.Column("through_id", sa.BigInteger(), nullable=False),
        sa.Column("from_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "through_id", name="pk_audit_stretches"),
    )
    for table in ("audit_checkpoints", "audit_stretches"):
        for statement in guards.append_only(table):
            op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_stretches")
    op.drop_table("audit_checkpoints")
    op.drop_column("reward_audits", "complete")
