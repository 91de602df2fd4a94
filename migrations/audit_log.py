"""The audit log's table, as the first migration of each database that has it makes it.

Migrations that have run must not change, so a change of the table is a migration of its own, not an edit here.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from migrations.guards import append_only


def create() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("attempt_id", sa.BigInteger),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("who", "what", "subject", "request_id", "outcome")),
        sa.Column("status", sa.SmallInteger),
        sa.Column("code", sa.Text),
        *(sa.Column(name, JSONB) for name in ("asked", "before", "after")),
    )
    op.create_index("ix_audit_log_subject", "audit_log", ["subject", "id"])
    op.create_index("ix_audit_log_who", "audit_log", ["who", "id"])
    for statement in append_only("audit_log"):
        op.execute(statement)


def drop() -> None:
    op.drop_table("audit_log")
