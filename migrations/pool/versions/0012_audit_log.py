"""Who of ops did what.

Revision ID: 0012
Revises: 0011
"""

from migrations import audit_log

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    audit_log.create()


def downgrade() -> None:
    audit_log.drop()
