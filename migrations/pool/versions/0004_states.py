"""What flows know in typed columns and tables in place of a JSON `context`, and the transitions that are allowed.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from apps.common.wei import SignedWeiColumn, WeiColumn
from migrations import guards

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")
FLOWS = ("requests", "batches", "walks")

# As apps/pool/states.py had it when this was written: kind, status, and what may follow. A later change of the table there
# is a later migration.
REQUESTS = """
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
BATCHES = """
stake batched: submitting failed needs_attention
stake submitting: confirming completed needs_attention
stake confirming: completed failed needs_attention
stake needs_attention: batched submitting confirming completed failed
unstake batched: requesting failed needs_attention
unstake requesting: completed failed needs_attention
unstake needs_attention: batched requesting completed failed
claim batched: claiming completed failed needs_attention
claim claiming: completed failed needs_attention
claim needs_attention: batched claiming completed failed
"""
# table: (transitions, ends, columns that never change)
GUARDED = {
    "requests": (
        REQUESTS,
        ("completed", "rejected", "cancelled", "failed"),
        ("id", "message_id", "body", "kind", "pool_id", "user_id", "created_at"),
    ),
    "batches": (BATCHES, ("completed", "failed"), ("id", "kind", "pool_id", "created_at")),
}

FROM_CONTEXT = (
    """
    UPDATE batches SET
        parked_status = context ->> 'parked_status',
        funded = coalesce((context ->> 'funded')::boolean, false),
        reused_wei = (context ->> 'reused_wei')::numeric,
        settlement = coalesce((context ->> 'settlement')::integer, 1),
        short_wei = coalesce((context ->> 'short_wei')::numeric, 0)
    WHERE context <> '{}'
    """,
    """
    INSERT INTO unsigned_transactions (message_id, batch_id, from_address, to_address, data, value_wei, gas_limit)
    SELECT t.key, b.id, t.value ->> 'from', t.value ->> 'to', t.value ->> 'data', (t.value ->> 'value_wei')::numeric,
           (t.value ->> 'gas_limit')::bigint
    FROM batches b, jsonb_each(b.context -> 'transactions') t
    WHERE b.context ? 'transactions'
    """,
    """
    INSERT INTO batch_elements (batch_id, position, request_id, amount_wei)
    SELECT b.id, e.number - 1, e.value ->> 'reference', (e.value ->> 'amount_wei')::numeric
    FROM batches b, jsonb_array_elements(b.context -> 'elements') WITH ORDINALITY AS e (value, number)
    WHERE b.context ? 'elements'
    """,
    """
    UPDATE requests SET
        parked_status = context ->> 'parked_status',
        reservation = coalesce((context ->> 'reservation')::integer, 1),
        requeues = coalesce((context ->> 'requeues')::integer, 0),
        at_most = (context ->> 'at_most')::integer,
        hold_since = (context -> 'hold' ->> 'since')::double precision,
        hold_aside = (context -> 'hold' ->> 'aside')::numeric,
        hold_left = (context -> 'hold' ->> 'left')::numeric,
        expected_at = (context ->> 'expected_at')::timestamptz
    WHERE context <> '{}'
    """,
    """
    UPDATE walks SET
        refusals = coalesce((context ->> 'refusals')::integer, 0),
        reward_since_snapshot_wei = coalesce((context ->> 'reward_since_snapshot')::numeric, 0),
        closing_block = (context -> 'pending' ->> 'block')::bigint,
        closing_block_hash = context -> 'pending' ->> 'block_hash',
        closing_step_wei = (context -> 'pending' ->> 'step')::numeric,
        closing_total_pooled_ether_wei = (context -> 'pending' -> 'state' ->> 'total_pooled_ether_wei')::numeric,
        closing_total_shares = (context -> 'pending' -> 'state' ->> 'total_shares')::numeric,
        closing_share_rate = (context -> 'pending' -> 'state' ->> 'share_rate')::numeric
    """,
)
TO_CONTEXT = (
    """
    UPDATE batches b SET context = jsonb_strip_nulls(jsonb_build_object(
        'parked_status', parked_status,
        'funded', CASE WHEN funded THEN true END,
        'reused_wei', reused_wei::text,
        'settlement', nullif(settlement, 1),
        'short_wei', nullif(short_wei, 0),
        'transactions', (
            SELECT jsonb_object_agg(message_id, jsonb_build_object('from', from_address, 'to', to_address, 'data', data,
                'value_wei', value_wei::text, 'gas_limit', gas_limit))
            FROM unsigned_transactions t WHERE t.batch_id = b.id
        ),
        'elements', (
            SELECT jsonb_agg(jsonb_build_object('reference', request_id, 'amount_wei', amount_wei::text) ORDER BY position)
            FROM batch_elements e WHERE e.batch_id = b.id
        )
    ))
    """,
    """
    UPDATE requests SET context = jsonb_strip_nulls(jsonb_build_object(
        'parked_status', parked_status,
        'reservation', nullif(reservation, 1),
        'requeues', nullif(requeues, 0),
        'at_most', at_most,
        'hold', CASE WHEN hold_since IS NOT NULL THEN
            jsonb_build_object('since', hold_since, 'aside', hold_aside::text, 'left', hold_left::text) END,
        'expected_at', to_char(expected_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    ))
    """,
    """
    UPDATE walks SET context = jsonb_strip_nulls(jsonb_build_object(
        'refusals', nullif(refusals, 0),
        'reward_since_snapshot', reward_since_snapshot_wei::text,
        'pending', CASE WHEN closing_block IS NOT NULL THEN jsonb_build_object(
            'block', closing_block, 'block_hash', closing_block_hash, 'step', closing_step_wei::text,
            'state', jsonb_build_object('total_pooled_ether_wei', closing_total_pooled_ether_wei::text,
                'total_shares', closing_total_shares::text, 'share_rate', closing_share_rate::text)) END
    ))
    """,
)


def upgrade() -> None:
    op.create_table(
        "unsigned_transactions",
        sa.Column("message_id", sa.Text, primary_key=True),
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), nullable=False),
        sa.Column("from_address", sa.Text, nullable=False),
        sa.Column("to_address", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("value_wei", WeiColumn(), nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    )
    op.create_index("ix_unsigned_transactions_batch", "unsigned_transactions", ["batch_id"])
    op.create_table(
        "batch_elements",
        sa.Column("batch_id", sa.Text, sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("amount_wei", WeiColumn(), nullable=False),
    )
    for table in FLOWS:
        op.add_column(table, sa.Column("parked_status", sa.Text))
        for column in _columns(table):
            op.add_column(table, column)
    for statement in FROM_CONTEXT:
        op.execute(statement)
    for table in FLOWS:
        op.drop_column(table, "context")
        op.drop_column(table, "flow_version")
    for table in ("unsigned_transactions", "batch_elements"):
        _run(guards.append_only(table))
    for table, (transitions, ends, fixed) in GUARDED.items():
        op.execute(_function(table, transitions, ends, fixed))
        op.execute(
            f"CREATE TRIGGER transitions BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_transition()"
        )
        # ALWAYS: an ordinary trigger sleeps under ``session_replication_role = replica``.
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER transitions")
        _run(guards.refuse("kept", "DELETE OR TRUNCATE", table))


def downgrade() -> None:
    for table in GUARDED:
        op.execute(f"DROP TRIGGER kept ON {table}")
        op.execute(f"DROP TRIGGER transitions ON {table}")
        op.execute(f"DROP FUNCTION {table}_transition()")
    for table in FLOWS:
        op.add_column(table, sa.Column("context", JSONB, nullable=False, server_default=sa.text("'{}'")))
        op.add_column(table, sa.Column("flow_version", sa.Integer, nullable=False, server_default=sa.text("1")))
    for statement in TO_CONTEXT:
        op.execute(statement)
    for table in FLOWS:
        op.drop_column(table, "parked_status")
        for column in _columns(table):
            op.drop_column(table, column.name)
    op.drop_table("batch_elements")
    op.drop_table("unsigned_transactions")


def _columns(table: str) -> tuple[sa.Column, ...]:  # type: ignore[type-arg]
    found: dict[str, tuple[sa.Column, ...]] = {  # type: ignore[type-arg]
        "batches": (
            sa.Column("funded", sa.Boolean, nullable=False, server_default=sa.text("false")),
            sa.Column("reused_wei", WeiColumn()),
            sa.Column("settlement", sa.Integer, nullable=False, server_default=sa.text("1")),
            sa.Column("short_wei", WeiColumn(), nullable=False, server_default=sa.text("0")),
        ),
        "requests": (
            sa.Column("reservation", sa.Integer, nullable=False, server_default=sa.text("1")),
            sa.Column("requeues", sa.Integer, nullable=False, server_default=sa.text("0")),
            sa.Column("at_most", sa.Integer),
            sa.Column("hold_since", sa.Double),
            sa.Column("hold_aside", WeiColumn()),
            sa.Column("hold_left", WeiColumn()),
            sa.Column("expected_at", TIME),
        ),
        "walks": (
            sa.Column("refusals", sa.Integer, nullable=False, server_default=sa.text("0")),
            sa.Column("reward_since_snapshot_wei", SignedWeiColumn(), nullable=False, server_default=sa.text("0")),
            sa.Column("closing_block", sa.BigInteger),
            sa.Column("closing_block_hash", sa.Text),
            sa.Column("closing_step_wei", SignedWeiColumn()),
            sa.Column("closing_total_pooled_ether_wei", WeiColumn()),
            sa.Column("closing_total_shares", WeiColumn()),
            sa.Column("closing_share_rate", WeiColumn()),
        ),
    }
    return found[table]


def _function(table: str, transitions: str, ends: tuple[str, ...], fixed: tuple[str, ...]) -> str:
    """A trigger function whose refusals carry a code of their own and the name of the rule."""
    allowed = ", ".join(f"'{line}'" for line in _lines(transitions))
    over = ", ".join(f"'{status}'" for status in ends)
    changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in fixed)
    return f"""
        CREATE FUNCTION {table}_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.status IN ({over}) AND OLD IS DISTINCT FROM NEW THEN
                RAISE EXCEPTION '{table} % has ended (%): it never changes again', OLD.id, OLD.status
                    USING ERRCODE = 'ST001', CONSTRAINT = '{table}_end';
            END IF;
            IF {changed} THEN
                RAISE EXCEPTION '{table} %: what was asked for never changes', OLD.id
                    USING ERRCODE = 'ST001', CONSTRAINT = '{table}_identity';
            END IF;
            IF OLD.status <> NEW.status
                AND OLD.kind || ' ' || OLD.status || ' ' || NEW.status <> ALL (ARRAY[{allowed}])
            THEN
                RAISE EXCEPTION '{table} %: % does not follow % of a %', OLD.id, NEW.status, OLD.status, OLD.kind
                    USING ERRCODE = 'ST001', CONSTRAINT = '{table}_transition';
            END IF;
            RETURN NEW;
        END $$
    """


def _lines(transitions: str) -> list[str]:
    found = []
    for line in transitions.strip().splitlines():
        start, following = line.split(":")
        found += [f"{start} {status}" for status in following.split()]
    return found


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
