"""Who of ops did what.

Revision ID: 0003
Revises: 0002
"""

from migrations import audit_log

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    audit_log.create()


def downgrade() -> None:
    audit_log.drop()
