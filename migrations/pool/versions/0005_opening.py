"""A request is opened, and its first step closed, by one function each.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

from migrations.sql_files import function

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FUNCTIONS = ("open_request", "close_opening")


def upgrade() -> None:
    for name in FUNCTIONS:
        op.execute(function(name, revision, "pool"))


def downgrade() -> None:
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
