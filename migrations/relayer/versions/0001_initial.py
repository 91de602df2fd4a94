"""Signers, messages, slots, attempts, sends, events.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import WeiColumn
from migrations import guards
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
# What a message asks for. Its gas limit may still be raised to an estimate before it is signed.
PAYLOAD = ("message_id", "seq", "request", "chain_id", "from_address", "to_address", "data", "value_wei", "deadline")


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
    op.drop_constraint("fk_messages_own_slot", "messages")
    for table in TABLES:
        op.drop_table(table)
    for function in ("refuse_change", "refuse_closed_slot"):
        op.execute(f"DROP FUNCTION {function}")
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
        sa.CheckConstraint("state IN ('active','draining','paused','quarantined')", name="state_known"),
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
        sa.Column("raise_asked", sa.Boolean, nullable=False, server_default=sa.text("false")),
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
        sa.CheckConstraint("intent IN ('none','cancel','expire','reject')", name="intent_known"),
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
        sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id"), nullable=False, unique=True),
        sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'open'")),
        sa.Column("settled_by", sa.Text),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(["chain_id", "address"], ["signers.chain_id", "signers.address"]),
        sa.UniqueConstraint("chain_id", "address", "nonce", "message_id"),
        sa.CheckConstraint("state IN ('open','settled','foreign')", name="state_known"),
    )
    # The nonce that a message shows is that of its own slot: no other message's, and no other signer's.
    op.create_foreign_key(
        "fk_messages_own_slot",
        "messages",
        "slots",
        ["chain_id", "from_address", "nonce", "message_id"],
        ["chain_id", "address", "nonce", "message_id"],
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
        sa.Column("head", sa.BigInteger, nullable=False),
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
    op.create_index("ix_sends_tx_hash", "sends", ["tx_hash", "endpoint", "id"])
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
    # Losing an attempt that some node holds, or a second nonce for one message, is the way to a wrong outcome or a
    # double one. So the database itself refuses, whatever the program does.
    op.execute(guards.CREATE)
    op.execute(
        "CREATE FUNCTION refuse_closed_slot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT FROM slots s WHERE s.chain_id = NEW.chain_id AND s.address = NEW.address "
        "AND s.nonce = NEW.nonce AND s.state <> 'open') THEN RAISE EXCEPTION 'nonce % is closed', NEW.nonce; END IF; "
        "RETURN NEW; END $$"
    )
    for table in ("attempts", "message_events"):
        _run(guards.append_only(table))
    for table in ("messages", "slots", "sends"):
        _run(guards.refuse("kept", "DELETE OR TRUNCATE", table))
    _refuse("sends_answered_once", "UPDATE", "sends", "FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL)")
    _refuse("messages_final", "UPDATE", "messages", f"FOR EACH ROW WHEN (OLD.status IN ({FINAL}))")
    payload = " OR ".join(f"OLD.{column} IS DISTINCT FROM NEW.{column}" for column in PAYLOAD)
    _refuse("messages_payload_fixed", "UPDATE", "messages", f"FOR EACH ROW WHEN ({payload})")
    bound = "OLD.nonce IS NOT NULL AND (NEW.nonce IS DISTINCT FROM OLD.nonce OR NEW.gas_limit <> OLD.gas_limit)"
    _refuse("messages_nonce_fixed", "UPDATE", "messages", f"FOR EACH ROW WHEN ({bound})")
    _refuse("slots_bound", "UPDATE OF message_id, nonce, address, chain_id", "slots", "FOR EACH ROW")
    _refuse("slots_closed_once", "UPDATE", "slots", "FOR EACH ROW WHEN (OLD.state <> 'open')")
    _refuse("signers_nonce_grows", "UPDATE", "signers", "FOR EACH ROW WHEN (NEW.next_nonce < OLD.next_nonce)")
    _refuse("signers_quarantine_stays", "UPDATE", "signers", "FOR EACH ROW WHEN (OLD.state = 'quarantined')")
    op.execute(
        "CREATE TRIGGER attempts_of_open_slots BEFORE INSERT ON attempts FOR EACH ROW "
        "EXECUTE FUNCTION refuse_closed_slot()"
    )


def _refuse(name: str, what: str, table: str, condition: str) -> None:
    _run(guards.refuse(name, what, table, condition))


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
