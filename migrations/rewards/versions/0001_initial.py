"""The reward index: pools, positions, the append-only log of events, audits, message keys.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from apps.common.wei import ScaledColumn, SignedWeiColumn, WeiColumn
from migrations import guards
from migrations.domains import CREATE, DROP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NAME = sa.Text(collation="C")
NOW = sa.text("clock_timestamp()")
ZERO = sa.text("0")


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    _create_message_keys()
    _create_pools()
    _create_positions()
    _create_events()
    _create_audits()


def downgrade() -> None:
    for table in ("reward_audits", "reward_events", "reward_positions", "reward_pools", "message_keys"):
        op.drop_table(table)
    op.execute(guards.DROP)
    for statement in DROP:
        op.execute(statement)


def _create_message_keys() -> None:
    op.create_table(
        "message_keys",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.SmallInteger()),
        sa.Column("response", sa.Text()),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("message_id", name="pk_message_keys"),
    )


def _create_pools() -> None:
    op.create_table(
        "reward_pools",
        sa.Column("pool_id", NAME, nullable=False),
        sa.Column("weight_wei", WeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("acc_reward_per_share", ScaledColumn(), nullable=False, server_default=ZERO),
        sa.Column("remainder", ScaledColumn(), nullable=False, server_default=ZERO),
        sa.Column("accrued_wei", SignedWeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("claimed_wei", SignedWeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("parked_wei", SignedWeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("deficit_wei", WeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("fee_remainder", sa.Integer(), nullable=False, server_default=ZERO),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("pool_id", name="pk_reward_pools"),
        sa.CheckConstraint("remainder >= 0", name=op.f("ck_reward_pools_remainder")),
        sa.CheckConstraint("fee_remainder BETWEEN 0 AND 9999", name=op.f("ck_reward_pools_fee_remainder")),
    )


def _create_positions() -> None:
    op.create_table(
        "reward_positions",
        sa.Column("pool_id", NAME, nullable=False),
        sa.Column("user_id", NAME, nullable=False),
        sa.Column("staked_wei", WeiColumn(), nullable=False),
        sa.Column("exiting_wei", WeiColumn(), nullable=False),
        sa.Column("index_snapshot", ScaledColumn(), nullable=False),
        sa.Column("pending_scaled", ScaledColumn(), nullable=False),
        sa.Column("claimed_wei", SignedWeiColumn(), nullable=False),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("pool_id", "user_id", name="pk_reward_positions"),
    )


def _create_events() -> None:
    op.create_table(
        "reward_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("pool_id", NAME, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message_id", NAME, nullable=False),
        sa.Column("user_id", NAME),
        sa.Column("staked_delta_wei", SignedWeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("exiting_delta_wei", SignedWeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("claimed_wei", SignedWeiColumn(), nullable=False, server_default=ZERO),
        sa.Column("new_rewards_wei", SignedWeiColumn()),
        sa.Column("fee_wei", WeiColumn()),
        sa.Column("distributed_wei", SignedWeiColumn()),
        sa.Column("parked_wei", SignedWeiColumn()),
        sa.Column("weight_wei", WeiColumn()),
        sa.Column("fee_bps", sa.Integer()),
        sa.Column("source", sa.Text()),
        sa.Column("acc_reward_per_share", ScaledColumn(), nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_reward_events"),
        sa.CheckConstraint(
            "kind IN ('accrual', 'stake_delta', 'claim', 'settle', 'release')", name=op.f("ck_reward_events_kind")
        ),
    )
    op.create_index("uq_reward_events_message_id_kind", "reward_events", ["message_id", "kind"], unique=True)
    op.create_index("ix_reward_events_pool_id_id", "reward_events", ["pool_id", "id"])
    op.create_index("ix_reward_events_pool_id_kind_id", "reward_events", ["pool_id", "kind", "id"])
    op.create_index(
        "ix_reward_events_pool_id_user_id_id",
        "reward_events",
        ["pool_id", "user_id", "id"],
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    for statement in (guards.CREATE, *guards.append_only("reward_events")):
        op.execute(statement)


def _create_audits() -> None:
    op.create_table(
        "reward_audits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("pool_id", sa.Text()),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("differences", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_reward_audits"),
    )
