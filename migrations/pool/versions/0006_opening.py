"""A request is opened, and its first step closed, by one function each.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

from migrations.sql_files import function

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FUNCTIONS = ("open_request", "close_opening")


def upgrade() -> None:
    for name in FUNCTIONS:
        op.execute(function(name, revision, "pool"))


def downgrade() -> None:
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
