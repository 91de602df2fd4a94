"""Who of ops did what.

Revision ID: 0004
Revises: 0003
"""

from migrations import audit_log

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    audit_log.create()


def downgrade() -> None:
    audit_log.drop()
