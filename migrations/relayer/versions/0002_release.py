"""Transactions of the relayer's keys that it did not make, and the way out of a quarantine.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from apps.common.wei import WeiColumn
from migrations import guards

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
# What `relayer.lifecycle.external` ends. However a release crosses with signing, expiry or a cancel: a message that such a
# transaction has executed gets no nonce, and is not told to be without effect.
REFUSE_DONE = """
CREATE FUNCTION refuse_done_message() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF EXISTS (
    SELECT FROM foreign_transactions f
    WHERE f.chain_id = NEW.chain_id AND f.address = NEW.from_address AND f.to_address = NEW.to_address
      AND f.value_wei = NEW.value_wei AND f.data = NEW.data AND f.success
      AND NOT EXISTS (
          SELECT FROM foreign_claims c WHERE c.chain_id = f.chain_id AND c.address = f.address AND c.nonce = f.nonce
      )
) THEN RAISE EXCEPTION 'message % was done by a foreign transaction', NEW.message_id; END IF;
RETURN NEW; END $$
"""


def upgrade() -> None:
    op.create_table(
        "foreign_transactions",
        sa.Column("chain_id", sa.BigInteger, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("nonce", sa.BigInteger, primary_key=True),
        sa.Column("tx_hash", sa.Text),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("block_hash", sa.Text, nullable=False),
        sa.Column("to_address", sa.Text),
        sa.Column("value_wei", WeiColumn()),
        sa.Column("data", sa.LargeBinary),
        sa.Column("success", sa.Boolean),
        sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id")),
        sa.Column("found_at", TIME, nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(["chain_id", "address"], ["signers.chain_id", "signers.address"]),
        sa.CheckConstraint("num_nulls(tx_hash, value_wei, data, success) IN (0, 4)", name="read_whole"),
    )
    op.create_table(
        "foreign_claims",
        sa.Column("chain_id", sa.BigInteger, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("nonce", sa.BigInteger, primary_key=True),
        sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id"), nullable=False, unique=True),
        sa.Column("claimed_at", TIME, nullable=False, server_default=NOW),
        sa.ForeignKeyConstraint(
            ["chain_id", "address", "nonce"],
            ["foreign_transactions.chain_id", "foreign_transactions.address", "foreign_transactions.nonce"],
        ),
    )
    for table in ("foreign_transactions", "foreign_claims"):
        _run(guards.append_only(table))
    op.execute(REFUSE_DONE)
    op.execute(
        "CREATE TRIGGER messages_not_done BEFORE UPDATE ON messages FOR EACH ROW "
        "WHEN (OLD.status = 'queued' AND NEW.status NOT IN ('queued', 'conflict')) EXECUTE FUNCTION refuse_done_message()"
    )
    op.execute("ALTER TABLE messages ENABLE ALWAYS TRIGGER messages_not_done")
    _replace_quarantine("FOR EACH ROW WHEN (OLD.state = 'quarantined' AND NEW.state <> 'paused')")


def downgrade() -> None:
    _replace_quarantine("FOR EACH ROW WHEN (OLD.state = 'quarantined')")
    op.execute("DROP TRIGGER messages_not_done ON messages")
    op.execute("DROP FUNCTION refuse_done_message")
    for table in ("foreign_claims", "foreign_transactions"):
        op.drop_table(table)


def _replace_quarantine(condition: str) -> None:
    op.execute("DROP TRIGGER signers_quarantine_stays ON signers")
    _run(guards.refuse("signers_quarantine_stays", "UPDATE", "signers", condition))


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
