"""Who of ops did what.

Revision ID: 0005
Revises: 0004
"""

from migrations import audit_log

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    audit_log.create()


def downgrade() -> None:
    audit_log.drop()
