"""When requests were expected to be completed.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

from migrations import guards

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "request_estimates",
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("expected_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    for statement in guards.append_only("request_estimates"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("request_estimates")
