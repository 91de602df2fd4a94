"""Audits of what is new: where each clean one ended, and digests of the stretches it read.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from migrations import guards

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")


def upgrade() -> None:
    op.add_column("audits", sa.Column("pool_id", KEY))
    op.add_column("audits", sa.Column("complete", sa.Boolean(), nullable=False, server_default=sa.text("true")))
    op.add_column("audits", sa.Column("through_id", sa.BigInteger()))
    op.create_index("ix_audits_pool_id_ok", "audits", ["pool_id", "ok", "complete", "created_at"])
    op.create_table(
        "audit_stretches",
        sa.Column("pool_id", KEY, nullable=False),
        sa.Column("through_id", sa.BigInteger(), nullable=False),
        sa.Column("from_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pool_id", "through_id", name="pk_audit_stretches"),
    )
    for statement in guards.append_only("audit_stretches"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_stretches")
    op.drop_index("ix_audits_pool_id_ok", "audits")
    for column in ("through_id", "complete", "pool_id"):
        op.drop_column("audits", column)
