"""Who of ops did what.

Revision ID: 0008
Revises: 0007
"""

from migrations import audit_log

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    audit_log.create()


def downgrade() -> None:
    audit_log.drop()
