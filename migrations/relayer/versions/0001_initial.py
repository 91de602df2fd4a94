"""Signers, messages, slots, attempts, sends, events.

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
NOW = sa.text("clock_timestamp()")
TABLES = ("message_events", "sends", "attempts", "slots", "messages", "signers")
STATUSES = "'queued','signed','broadcast','mined','confirmed','reverted','cancelled','expired','rejected','conflict'"
FINAL = "'confirmed','reverted','cancelled','expired','rejected','conflict'"


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)
    _signers()
    _messages()
    _slots()
    _attempts()
    _evidence()
    _triggers()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change")
    op.execute("DROP FUNCTION refuse_change_of_final")
    for statement in DROP:
        op.execute(statement)


def _signers() -> None:
    op.create_table(
        "signers",
        sa.Column("chain_id", sa.BigInteger, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("next_nonce", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
        sa.CheckConstraint("next_nonce >= 0", name="nonce_not_negative"),
    )


def _messages() -> None:
    op.create_table(
        "messages",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False, unique=True),
        sa.Column("request", JSONB, nullable=False),
        sa.Column("purpose", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", JSONB),
        sa.Column("intent", sa.Text, nullable=False, server_default=sa.text("'none'")),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("from_address", sa.Text, nullable=False),
        sa.Column("to_address", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("value_wei", WeiColumn(), nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("deadline", TIME),
        sa.Column("nonce", sa.BigInteger),
        sa.Column("tx_hash", sa.Text),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.Text),
        sa.Column("observed_block", sa.BigInteger),
        sa.Column("observed_head", sa.BigInteger),
        sa.Column("gas_cost_wei", WeiColumn()),
        sa.Column("revert", JSONB),
        sa.Column("signed_at", TIME),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.Column("updated_at", TIME, nullable=False, server_default=NOW),
        sa.CheckConstraint(f"status IN ({STATUSES})", name="status_known"),
        sa.CheckConstraint("status <> 'queued' OR nonce IS NULL", name="queued_has_no_nonce"),
        sa.CheckConstraint(
            "status NOT IN ('signed','broadcast','mined','confirmed','reverted') OR nonce IS NOT NULL",
            name="signed_has_nonce",
        ),
    )
    unfinished = sa.text("status IN ('queued', 'signed', 'broadcast', 'mined')")
    op.create_index("ix_messages_status", "messages", ["status", "seq"])
    in_a_block = sa.text("block_number IS NOT NULL")
    op.create_index("ix_messages_block", "messages", ["block_number"], postgresql_where=in_a_block)
    op.create_index("ix_messages_unfinished", "messages", ["seq"], postgresql_where=unfinished)
    op.create_index("ix_messages_signed_at", "messages", ["signed_at"])


def _slots() -> None:
    op.create_table(
        "slots",
        sa.Column("chain_id", sa.BigInteger, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("nonce", sa.BigInteger, primary_key=True),
        sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id"), unique=True),
        sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'open'")),
        sa.Column("settled_by", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(["chain_id", "address"], ["signers.chain_id", "signers.address"]),
        sa.CheckConstraint("state IN ('open','settled','foreign')", name="state_known"),
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("tx_hash", sa.Text, primary_key=True),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("max_fee_per_gas_wei", WeiColumn(), nullable=False),
        sa.Column("max_priority_fee_per_gas_wei", WeiColumn(), nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(["chain_id", "address", "nonce"], ["slots.chain_id", "slots.address", "slots.nonce"]),
        sa.UniqueConstraint("chain_id", "address", "nonce", "number"),
        sa.CheckConstraint("kind IN ('payload','noop')", name="kind_known"),
    )


def _evidence() -> None:
    op.create_table(
        "sends",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("tx_hash", sa.Text, sa.ForeignKey("attempts.tx_hash"), nullable=False),
        sa.Column("endpoint", sa.Integer, nullable=False),
        sa.Column("head", sa.BigInteger, nullable=False),
        sa.Column("reply", sa.Text),
        sa.Column("reply_text", sa.Text),
        sa.Column("started_at", TIME, nullable=False, server_default=NOW),
        sa.Column("finished_at", TIME),
    )
    op.create_index("ix_sends_tx_hash", "sends", ["tx_hash", "endpoint", "head"])
    op.create_table(
        "message_events",
        sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("previous_digest", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False, server_default=NOW),
    )


def _triggers() -> None:
    # Losing an attempt that some node holds is the one way to a wrong outcome, so the database itself refuses.
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in ("attempts", "message_events"):
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE FUNCTION refuse_change_of_final() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'message % is final or bound to its slot', OLD.message_id; END $$"
    )
    op.execute(
        "CREATE TRIGGER messages_final BEFORE UPDATE ON messages FOR EACH ROW "
        f"WHEN (OLD.status IN ({FINAL}) AND OLD.status <> 'conflict') EXECUTE FUNCTION refuse_change_of_final()"
    )
    op.execute(
        "CREATE TRIGGER messages_kept BEFORE DELETE ON messages FOR EACH ROW EXECUTE FUNCTION refuse_change_of_final()"
    )
    op.execute(
        "CREATE TRIGGER slots_bound BEFORE UPDATE OF message_id, nonce, address, chain_id ON slots FOR EACH ROW "
        "EXECUTE FUNCTION refuse_change_of_final()"
    )
    op.execute(
        "CREATE TRIGGER slots_kept BEFORE DELETE ON slots FOR EACH ROW EXECUTE FUNCTION refuse_change_of_final()"
    )
