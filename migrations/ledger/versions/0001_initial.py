"""Movements, balances, message keys, audits.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import WeiColumn
from migrations.domains import CREATE, DROP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    op.create_table(
        "message_keys",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("request", JSONB, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("response", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "movements",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("reference", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.CheckConstraint("amount_wei > 0", name="amount_positive"),
    )
    op.create_index("ix_movements_user", "movements", ["pool_id", "user_id", "id"])
    op.create_index("ix_movements_kind", "movements", ["pool_id", "kind", "id"])
    op.create_index("ix_movements_source", "movements", ["pool_id", "source"], postgresql_include=["amount_wei"])
    op.create_index("ix_movements_target", "movements", ["pool_id", "target"], postgresql_include=["amount_wei"])
    reversal = sa.text("kind = 'reversal'")
    op.create_index("uq_movements_reversed", "movements", ["reference"], unique=True, postgresql_where=reversal)
    op.create_table(
        "balances",
        sa.Column("pool_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        *(
            sa.Column(f"{bucket}_wei", WeiColumn(), nullable=False, server_default=sa.text("0"))
            for bucket in ("available", "reserved", "staked", "unstaking")
        ),
        sa.Column("last_movement_id", sa.BigInteger),
    )
    op.create_table(
        "audits",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("differences", JSONB, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$
        """
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON movements FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute("CREATE TRIGGER append_only_table BEFORE TRUNCATE ON movements EXECUTE FUNCTION refuse_change()")
    # ALWAYS: an ordinary trigger sleeps under session_replication_role = replica.
    op.execute("ALTER TABLE movements ENABLE ALWAYS TRIGGER append_only")
    op.execute("ALTER TABLE movements ENABLE ALWAYS TRIGGER append_only_table")


def downgrade() -> None:
    for table in ("audits", "balances", "movements", "message_keys"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change()")
    for statement in DROP:
        op.execute(statement)
