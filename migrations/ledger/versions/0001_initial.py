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

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
# Byte order: the same as Python's, so that both sort locks alike; and cheap to compare.
KEY = sa.Text(collation="C")
BUCKETS = ("available", "reserved", "staked", "unstaking")
APPEND_ONLY = ("message_keys", "refusals", "movements", "system_checkpoints", "audits")

# Advisory keys. Below MARKS + 2^48: a transaction that is about to draw movement ids, see announce_movements.
MARKS = 0x4C454447 << 32
NEW_BALANCES = (0x4C454447 << 32) - 1

# What each bucket holds afterwards.
AFTER = ",\n        ".join(
    f"held.{name}_wei + new_amount * ((new_target = '{name}')::int - (new_source = '{name}')::int)" for name in BUCKETS
)

HORIZON = f"""
CREATE FUNCTION newest_movement_id() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM movements_id_seq $$;

-- Ids are drawn in one order and committed in another. Whoever is about to draw one says so first: a shared lock named
-- after the newest id there is. All ids up to the lowest such mark are decided; a mark is gone once its ids are visible.
CREATE FUNCTION announce_movements() RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock_shared({MARKS} + newest_movement_id()) $$;

CREATE FUNCTION movement_marks() RETURNS SETOF bigint LANGUAGE sql VOLATILE AS
$$
    SELECT DISTINCT ((classid::bigint << 32) | objid::bigint) - {MARKS}
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND ((classid::bigint << 32) | objid::bigint) - {MARKS} BETWEEN 0 AND {2**48}
    ORDER BY 1
$$;

-- `newest` is read before the marks: who is not seen there draws an id above it.
CREATE FUNCTION movement_horizon(OUT newest bigint, OUT settled bigint) LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    newest := newest_movement_id();
    settled := coalesce((SELECT min(mark) FROM movement_marks() AS mark), newest);
END $$;

-- Wait until every id up to `upto` that was drawn before the call is committed or given up. Marks in order, so that two
-- readers never wait in a circle; a writer waits for nothing after its mark.
CREATE FUNCTION settle_movements(upto bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS
$$
DECLARE mark bigint;
BEGIN
    FOR mark IN SELECT m FROM movement_marks() AS m WHERE m < upto LOOP
        PERFORM pg_advisory_xact_lock({MARKS} + mark);
    END LOOP;
END $$;

-- A user without a balance row has nothing to wait at. Who makes one holds this shared; who must know that none is under
-- way takes it alone, for a moment.
CREATE FUNCTION announce_new_balances() RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock_shared({NEW_BALANCES}) $$;

CREATE FUNCTION settle_new_balances() RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock({NEW_BALANCES}) $$;
"""  # noqa: S608  # numbers of this module

POST = f"""
-- The whole of one movement in one call: key, locks, rules, movement, balance. Lock order as in apps/ledger/models.py.
CREATE FUNCTION post_movement(
    new_message_id text, new_kind text, new_pool_id text, new_user_id text, new_source text, new_target text,
    new_amount numeric, new_reference text, new_request_id text,
    OUT outcome text, OUT id bigint, OUT message_id text, OUT kind text, OUT pool_id text, OUT user_id text,
    OUT amount_wei numeric, OUT reference text, OUT created_at timestamptz,
    OUT code text, OUT bucket text, OUT missing_wei numeric, OUT request_id text
) LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    original movements;
    held balances;
    wei_after numeric;
BEGIN
    outcome := 'posted';
    INSERT INTO message_keys (message_id) VALUES (new_message_id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        outcome := 'known';
        SELECT m.id, m.message_id, m.kind, m.pool_id, m.user_id, m.amount_wei, m.reference, m.created_at
        INTO id, message_id, kind, pool_id, user_id, amount_wei, reference, created_at
        FROM movements m WHERE m.message_id = new_message_id;
        IF NOT FOUND THEN
            SELECT r.message_id, r.kind, r.pool_id, r.user_id, r.amount_wei, r.reference,
                   r.code, r.bucket, r.missing_wei, r.request_id
            INTO message_id, kind, pool_id, user_id, amount_wei, reference, code, bucket, missing_wei, request_id
            FROM refusals r WHERE r.message_id = new_message_id;
        END IF;
        RETURN;
    END IF;

    message_id := new_message_id;
    kind := new_kind;
    pool_id := new_pool_id;
    user_id := new_user_id;
    amount_wei := new_amount;
    reference := new_reference;

    IF new_kind = 'reversal' THEN
        SELECT * INTO original FROM movements m WHERE m.message_id = new_reference FOR NO KEY UPDATE;
        IF NOT FOUND OR original.kind = 'reversal'
           OR (original.pool_id, original.user_id, original.amount_wei)
              IS DISTINCT FROM (new_pool_id, new_user_id, new_amount) THEN
            code := 'not_reversible';
        ELSIF EXISTS (SELECT FROM movements m WHERE m.kind = 'reversal' AND m.reference = new_reference) THEN
            code := 'already_reversed';
        END IF;
        new_source := original.target;
        new_target := original.source;
    END IF;

    IF code IS NULL AND new_user_id IS NOT NULL THEN
        SELECT * INTO held FROM balances b
        WHERE b.pool_id = new_pool_id AND b.user_id = new_user_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            IF new_source NOT LIKE '@%' THEN
                code := 'insufficient_balance';
                bucket := new_source;
                missing_wei := new_amount;
            ELSE
                PERFORM announce_new_balances();
                INSERT INTO balances (pool_id, user_id) VALUES (new_pool_id, new_user_id) ON CONFLICT DO NOTHING;
                SELECT * INTO held FROM balances b
                WHERE b.pool_id = new_pool_id AND b.user_id = new_user_id FOR NO KEY UPDATE;
            END IF;
        END IF;
    END IF;

    IF code IS NULL AND new_user_id IS NOT NULL THEN
        CASE new_source
            WHEN 'available' THEN wei_after := held.available_wei - new_amount;
            WHEN 'reserved' THEN wei_after := held.reserved_wei - new_amount;
            WHEN 'staked' THEN wei_after := held.staked_wei - new_amount;
            WHEN 'unstaking' THEN wei_after := held.unstaking_wei - new_amount;
            ELSE wei_after := 0;
        END CASE;
        IF wei_after < 0 THEN
            code := 'insufficient_balance';
            bucket := new_source;
            missing_wei := -wei_after;
        END IF;
    END IF;

    IF code IS NULL AND new_user_id IS NOT NULL THEN
        CASE new_target
            WHEN 'available' THEN wei_after := held.available_wei + new_amount;
            WHEN 'reserved' THEN wei_after := held.reserved_wei + new_amount;
            WHEN 'staked' THEN wei_after := held.staked_wei + new_amount;
            WHEN 'unstaking' THEN wei_after := held.unstaking_wei + new_amount;
            ELSE wei_after := 0;
        END CASE;
        IF wei_after >= {2**256} THEN
            code := 'balance_too_large';
            bucket := new_target;
        END IF;
    END IF;

    IF code IS NOT NULL THEN
        outcome := 'refused';
        request_id := new_request_id;
        INSERT INTO refusals (message_id, kind, pool_id, user_id, amount_wei, reference, code, bucket, missing_wei,
                              request_id)
        VALUES (new_message_id, new_kind, new_pool_id, new_user_id, new_amount, new_reference, code, bucket,
                missing_wei, new_request_id);
        RETURN;
    END IF;

    PERFORM announce_movements();
    IF new_user_id IS NULL THEN
        INSERT INTO movements AS m (message_id, kind, pool_id, source, target, amount_wei, reference)
        VALUES (new_message_id, new_kind, new_pool_id, new_source, new_target, new_amount, new_reference)
        RETURNING m.id, m.created_at INTO id, created_at;
        RETURN;
    END IF;
    -- Drawn under the row's lock, and never back even if the clock goes back: the user's commit order is time order.
    created_at := greatest(clock_timestamp(), held.updated_at + interval '1 microsecond');
    INSERT INTO movements AS m (
        message_id, kind, pool_id, user_id, source, target, amount_wei, reference, created_at, previous_id,
        available_wei, reserved_wei, staked_wei, unstaking_wei)
    VALUES (
        new_message_id, new_kind, new_pool_id, new_user_id, new_source, new_target, new_amount, new_reference,
        created_at, held.last_movement_id,
        {AFTER})
    RETURNING m.id, m.available_wei, m.reserved_wei, m.staked_wei, m.unstaking_wei
    INTO id, held.available_wei, held.reserved_wei, held.staked_wei, held.unstaking_wei;
    UPDATE balances b
    SET available_wei = held.available_wei, reserved_wei = held.reserved_wei, staked_wei = held.staked_wei,
        unstaking_wei = held.unstaking_wei, last_movement_id = id, updated_at = created_at
    WHERE b.pool_id = new_pool_id AND b.user_id = new_user_id;
END $$;
"""  # noqa: S608  # numbers and names of this module


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
    for script in (HORIZON, POST, guards.CREATE):
        op.execute(script)
    _guard()


def downgrade() -> None:
    for table in ("audits", "system_checkpoints", "balances", "movements", "refusals", "message_keys"):
        op.drop_table(table)
    for function in (
        "post_movement",
        "settle_new_balances",
        "announce_new_balances",
        "settle_movements",
        "movement_horizon",
        "movement_marks",
        "announce_movements",
        "newest_movement_id",
        "refuse_change",
    ):
        op.execute(f"DROP FUNCTION {function}")
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
