"""Movements in a chain per user, balances tied to it, message keys, refusals, checkpoints, audits.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import ScaledColumn, WeiColumn
from migrations import guards
from migrations.domains import CREATE, DROP
from migrations.sql_files import function

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
# Byte order: the same as Python's, so that both sort locks alike; and cheap to compare.
KEY = sa.Text(collation="C")
BUCKETS = ("available", "reserved", "staked", "unstaking")
APPEND_ONLY = ("message_keys", "refusals", "movements", "system_checkpoints", "audits")

# In the order in which one uses the other.
FUNCTIONS = (
    "newest_movement_id",
    "announce_movements",
    "movement_marks",
    "movement_horizon",
    "settle_movements",
    "announce_new_balances",
    "settle_new_balances",
    "post_movement",
)


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    op.create_table("message_keys", sa.Column("message_id", KEY, primary_key=True))
    op.create_table(
        "refusals",
        sa.Column("message_id", KEY, sa.ForeignKey("message_keys.message_id"), primary_key=True),
        *_request_columns(),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("bucket", sa.Text),
        sa.Column("missing_wei", WeiColumn()),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    _create_movements()
    op.create_table(
        "balances",
        sa.Column("pool_id", KEY, primary_key=True),
        sa.Column("user_id", KEY, primary_key=True),
        *(sa.Column(f"{name}_wei", WeiColumn(), nullable=False, server_default=sa.text("0")) for name in BUCKETS),
        sa.Column("last_movement_id", sa.BigInteger),
        sa.Column("updated_at", TIME),
        sa.CheckConstraint(
            "last_movement_id IS NOT NULL OR "
            "(available_wei = 0 AND reserved_wei = 0 AND staked_wei = 0 AND unstaking_wei = 0)",
            name="empty_before_first",
        ),
        sa.ForeignKeyConstraint(
            ["last_movement_id", "pool_id", "user_id", *(f"{name}_wei" for name in BUCKETS)],
            [f"movements.{name}" for name in ("id", "pool_id", "user_id", *(f"{name}_wei" for name in BUCKETS))],
            name="fk_balances_head",
        ),
        # Room for the next versions of a row on its own page: an update then touches no index.
        postgresql_with={"fillfactor": "60"},
    )
    op.create_table(
        "system_checkpoints",
        sa.Column("pool_id", KEY, primary_key=True),
        sa.Column("through_id", sa.BigInteger, primary_key=True),
        sa.Column("account", KEY, primary_key=True),
        sa.Column("sum_wei", ScaledColumn(), nullable=False),
    )
    op.create_table(
        "audits",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("differences", JSONB, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    for name in FUNCTIONS:
        op.execute(function(name, revision, "ledger"))
    op.execute(guards.CREATE)
    _guard()


def downgrade() -> None:
    for table in ("audits", "system_checkpoints", "balances", "movements", "refusals", "message_keys"):
        op.drop_table(table)
    for name in (*reversed(FUNCTIONS), "refuse_change"):
        op.execute(f"DROP FUNCTION {name}")
    for statement in DROP:
        op.execute(statement)


def _request_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("pool_id", KEY, nullable=False),
        sa.Column("user_id", KEY),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("reference", KEY),
    ]


def _create_movements() -> None:
    after = [f"{name}_wei" for name in BUCKETS]
    before = [f"{name}_before" for name in BUCKETS]
    books = ["id", "pool_id", "user_id", *after]
    op.create_table(
        "movements",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("message_id", KEY, nullable=False, unique=True),
        *_request_columns(),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("previous_id", sa.BigInteger, unique=True),
        *(sa.Column(name, WeiColumn()) for name in after),
        *(
            sa.Column(
                f"{name}_before",
                sa.Numeric,
                sa.Computed(
                    f"{name}_wei + CASE '{name}' WHEN source THEN amount_wei WHEN target THEN -amount_wei ELSE 0 END",
                    persisted=True,
                ),
            )
            for name in BUCKETS
        ),
        sa.CheckConstraint("amount_wei > 0", name="amount_positive"),
        sa.CheckConstraint("source <> target", name="two_sides"),
        sa.CheckConstraint(
            "(user_id IS NULL) = (starts_with(source, '@') AND starts_with(target, '@'))", name="user_named"
        ),
        sa.CheckConstraint(
            f"num_nulls({', '.join(after)}) = CASE WHEN user_id IS NULL THEN 4 ELSE 0 END", name="buckets_known"
        ),
        sa.CheckConstraint(
            "CASE WHEN user_id IS NULL THEN previous_id IS NULL WHEN previous_id IS NOT NULL THEN previous_id < id "
            f"ELSE {' AND '.join(f'{name} = 0' for name in before)} END",
            name="chain",
        ),
        sa.UniqueConstraint(*books, name="uq_movements_books"),
        sa.ForeignKeyConstraint(
            ["previous_id", "pool_id", "user_id", *before],
            [f"movements.{name}" for name in books],
            name="fk_movements_chain",
        ),
    )
    op.create_index("ix_movements_user", "movements", ["pool_id", "user_id", "id"])
    op.create_index("ix_movements_kind", "movements", ["pool_id", "kind", "id"])
    first = sa.text("previous_id IS NULL AND user_id IS NOT NULL")
    op.create_index("uq_movements_first", "movements", ["pool_id", "user_id"], unique=True, postgresql_where=first)
    reversal = sa.text("kind = 'reversal'")
    op.create_index("uq_movements_reversed", "movements", ["reference"], unique=True, postgresql_where=reversal)


def _guard() -> None:
    for table in APPEND_ONLY:
        _run(guards.append_only(table))
    _run(guards.refuse("kept", "DELETE OR TRUNCATE", "balances"))
    # The foreign key admits any movement of the chain; only forward along it is a posting.
    forward = (
        "FOR EACH ROW WHEN (NEW.last_movement_id IS NULL OR NEW.last_movement_id <= OLD.last_movement_id "
        "OR (NEW.pool_id, NEW.user_id) <> (OLD.pool_id, OLD.user_id))"
    )
    _run(guards.refuse("forward_only", "UPDATE", "balances", forward))


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
