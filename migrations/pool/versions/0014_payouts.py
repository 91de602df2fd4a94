"""Payouts and deposits: their tables, the users' payout addresses, and the statuses of the two new kinds of request.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import WeiColumn
from migrations import guards

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
# As 0011 had it.
BEFORE = """
stake reserving: queued rejected needs_attention
stake queued: batched cancelled needs_attention
stake batched: submitting queued needs_attention
stake submitting: confirming completed needs_attention
stake confirming: completed queued failed needs_attention
stake needs_attention: reserving queued batched submitting confirming completed failed
unstake reserving: queued rejected needs_attention
unstake queued: batched cancelled needs_attention
unstake batched: requesting queued failed needs_attention
unstake requesting: waiting queued failed needs_attention
unstake waiting: claiming completed needs_attention
unstake claiming: waiting completed needs_attention
unstake needs_attention: reserving queued batched requesting waiting claiming completed failed
reward_claim settling: completed needs_attention
reward_claim needs_attention: settling completed
"""
NEW = """
payout reserving: approving sending rejected needs_attention
payout approving: sending cancelled failed needs_attention
payout sending: confirming completed cancelled failed needs_attention
payout confirming: completed cancelled failed needs_attention
payout needs_attention: reserving approving sending confirming completed failed
deposit booking: completed rejected needs_attention
deposit needs_attention: booking completed
"""
# Of each table: the columns that never change, and when nothing may any more.
FIXED = {
    "payout_transactions": ("message_id request_id from_address to_address value_wei gas_limit created_at", ""),
    "payouts": ("request_id pool_id user_id amount_wei to_address needs_approval asked_by created_at", ""),
    "payout_addresses": (
        "id message_id body user_id address label usable_at created_at",
        " OR OLD.removed_at IS NOT NULL",
    ),
}
ENDS = "'completed', 'rejected', 'cancelled', 'failed'"
NEVER = ("id", "message_id", "body", "kind", "pool_id", "user_id", "created_at")
TABLES = ("deposits", "payout_transactions", "payouts", "payout_addresses")


def upgrade() -> None:
    op.create_table(
        "payout_addresses",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("usable_at", TIME, nullable=False),
        sa.Column("removed_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index("ix_payout_addresses_user", "payout_addresses", ["user_id", "id"])
    op.create_index(
        "uq_payout_addresses_allowed",
        "payout_addresses",
        ["user_id", "address"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "payouts",
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("pool_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
        sa.Column("to_address", sa.Text, nullable=False),
        sa.Column("needs_approval", sa.Boolean, nullable=False),
        sa.Column("asked_by", sa.Text),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index("ix_payouts_lately", "payouts", ["pool_id", "created_at"])
    op.create_table(
        "payout_transactions",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, sa.ForeignKey("payouts.request_id"), nullable=False),
        sa.Column("from_address", sa.Text, nullable=False),
        sa.Column("to_address", sa.Text, nullable=False),
        sa.Column("value_wei", WeiColumn(), nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("tx_hash", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index("uq_payout_transactions_request", "payout_transactions", ["request_id"], unique=True)
    op.create_index(
        "uq_payout_transactions_hash",
        "payout_transactions",
        ["tx_hash"],
        unique=True,
        postgresql_where=sa.text("tx_hash IS NOT NULL"),
    )
    op.create_table(
        "deposits",
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("tx_hash", sa.Text, nullable=False, unique=True),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    for table in ("payout_addresses", "payouts", "payout_transactions"):
        _run(guards.refuse("kept", "DELETE OR TRUNCATE", table))
    _run(guards.append_only("deposits"))
    # What was asked for never changes; how it stands does.
    for table, (fixed, more) in FIXED.items():
        changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in fixed.split())
        _run(guards.refuse("fixed", "UPDATE", table, f"FOR EACH ROW WHEN ({changed}{more})"))
    _guard(BEFORE + NEW)


def downgrade() -> None:
    there = sa.text("SELECT EXISTS (SELECT FROM payouts) OR EXISTS (SELECT FROM deposits)")
    if op.get_bind().execute(there).scalar_one():
        raise RuntimeError("Payouts or deposits were made: the release before could not show them. Stay at 0014.")
    _guard(BEFORE)
    for table in TABLES:
        op.drop_table(table)


def _guard(lines: str) -> None:
    """The requests' guard, as 0011 made it, over other lines: its condition, and the function that says which rule is broken. The
    old one goes once the new one stands."""
    found = []
    for line in lines.splitlines():
        start, _, following = line.partition(":")
        found += [f"'{start} {status}'" for status in following.split()]
    changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in NEVER)
    ended = f"OLD.status IN ({ENDS}) AND OLD IS DISTINCT FROM NEW"
    not_next = (
        "OLD.status <> NEW.status"
        f" AND OLD.kind || ' ' || OLD.status || ' ' || NEW.status <> ALL (ARRAY[{', '.join(found)}])"
    )
    op.execute(f"""
        CREATE OR REPLACE FUNCTION requests_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {ended} THEN
                RAISE EXCEPTION 'requests % has ended (%): it never changes again', OLD.id, OLD.status
                    USING ERRCODE = 'ST001', CONSTRAINT = 'requests_end';
            END IF;
            IF {changed} THEN
                RAISE EXCEPTION 'requests %: what was asked for never changes', OLD.id
                    USING ERRCODE = 'ST001', CONSTRAINT = 'requests_identity';
            END IF;
            IF {not_next} THEN
                RAISE EXCEPTION 'requests %: % does not follow % of a %', OLD.id, NEW.status, OLD.status, OLD.kind
                    USING ERRCODE = 'ST001', CONSTRAINT = 'requests_transition';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("ALTER TRIGGER moves ON requests RENAME TO moves_before")
    op.execute(
        f"CREATE TRIGGER moves AFTER UPDATE ON requests FOR EACH ROW WHEN (({ended}) OR {changed} OR ({not_next}))"
        " EXECUTE FUNCTION requests_transition()"
    )
    # ALWAYS: an ordinary trigger sleeps under ``session_replication_role = replica``.
    op.execute("ALTER TABLE requests ENABLE ALWAYS TRIGGER moves")
    op.execute("DROP TRIGGER moves_before ON requests")


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
