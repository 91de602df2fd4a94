"""A great loss is settled in pieces: how far it has come stands on the pool's row, and the index stands still meanwhile.

The release before knows nothing of the new columns. A loss that it accrues it settles itself; while one of this release is
being settled, the guard refuses it an accrual, which is asked for again.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from apps.common.wei import ScaledColumn
from migrations.sql_files import function

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reward_pools", sa.Column("settling_prefix", sa.Text()))
    op.add_column("reward_pools", sa.Column("settling_events", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column(
        "reward_pools",
        sa.Column("settling_after", sa.Text(collation="C"), nullable=False, server_default=sa.text("''")),
    )
    op.add_column("reward_pools", sa.Column("lowest_standing", ScaledColumn()))
    op.add_column("reward_pools", sa.Column("standing_event_id", sa.BigInteger()))
    op.execute(function("hold_index", "0002", "rewards"))
    op.execute(
        "CREATE TRIGGER settled_first BEFORE UPDATE ON reward_pools FOR EACH ROW"
        " WHEN (OLD.settling_prefix IS NOT NULL AND NEW.acc_reward_per_share <> OLD.acc_reward_per_share)"
        " EXECUTE FUNCTION hold_index()"
    )
    op.execute("ALTER TABLE reward_pools ENABLE ALWAYS TRIGGER settled_first")


def downgrade() -> None:
    # Where a loss is still being settled, going back would let it be forgotten: that is refused.
    op.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM reward_pools WHERE settling_prefix IS NOT NULL) THEN"
        " RAISE EXCEPTION 'A loss is being settled: call POST /v1/settlements of rewards first'; END IF; END $$"
    )
    op.execute("DROP TRIGGER settled_first ON reward_pools")
    op.execute("DROP FUNCTION hold_index()")
    for column in (
        "standing_event_id",
        "lowest_standing",
        "settling_after",
        "settling_events",
        "settling_prefix",
    ):
        op.drop_column("reward_pools", column)
