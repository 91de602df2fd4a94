"""A request that moves with its batch touches no index, and what guards the move costs nothing where it is allowed.

- An update keeps every index as it is where no indexed column changes and its page has room (HOT). The queue's index was
  chosen by the status, which every move changes; now by what changes only when a request comes into the queue or leaves it.
- A trigger before each row locks the row once more and calls a function. After the row, with its rule as its condition, it
  calls the function only to refuse.
- A foreign key looks for the request of each event on its own, and locks it. One look finds those of a whole statement.

The release before finds the queue by reading the table, as long as it runs beside this one.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

from migrations.sql_files import function

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

EVENTS = ("unnumbered_events", "request_events")
COLUMNS = ["pool_id", "kind", "queued_at", "id"]
ENDS = "'completed', 'rejected', 'cancelled', 'failed'"
FIXED = ("id", "message_id", "body", "kind", "pool_id", "user_id", "created_at")
# As apps/pool/states.py had it when this was written, and as `requests_transition()` says: kind, status, and what may follow.
TRANSITIONS = """
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


def upgrade() -> None:
    op.execute("ALTER TABLE requests SET (fillfactor = 50)")
    op.create_index("ix_requests_waiting", "requests", COLUMNS, postgresql_where=sa.text(WAITING))
    op.drop_index("ix_requests_queue", "requests")

    # The new guard stands before the old one goes: at no moment is the table without. The same for the events.
    op.execute(
        f"CREATE TRIGGER moves AFTER UPDATE ON requests FOR EACH ROW WHEN ({_refused()})"
        " EXECUTE FUNCTION requests_transition()"
    )
    # ALWAYS: an ordinary trigger sleeps under ``session_replication_role = replica``.
    op.execute("ALTER TABLE requests ENABLE ALWAYS TRIGGER moves")
    op.execute("DROP TRIGGER transitions ON requests")

    op.execute(function("refuse_unknown_request", revision, "pool"))
    for table in EVENTS:
        op.execute(
            f"CREATE TRIGGER known_request AFTER INSERT ON {table} REFERENCING NEW TABLE AS made"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_unknown_request()"
        )
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER known_request")
        op.drop_constraint(f"fk_{table}_request_id", table, type_="foreignkey")


def downgrade() -> None:
    for table in EVENTS:
        op.create_foreign_key(f"fk_{table}_request_id", table, "requests", ["request_id"], ["id"])
        op.execute(f"DROP TRIGGER known_request ON {table}")
    op.execute("DROP FUNCTION refuse_unknown_request()")
    op.execute(
        "CREATE TRIGGER transitions BEFORE UPDATE ON requests FOR EACH ROW EXECUTE FUNCTION requests_transition()"
    )
    op.execute("ALTER TABLE requests ENABLE ALWAYS TRIGGER transitions")
    op.execute("DROP TRIGGER moves ON requests")
    op.create_index("ix_requests_queue", "requests", COLUMNS, postgresql_where=sa.text("status = 'queued'"))
    op.drop_index("ix_requests_waiting", "requests")
    op.execute("ALTER TABLE requests RESET (fillfactor)")


WAITING = "batch_id IS NULL AND eligible_at IS NOT NULL"


def _refused() -> str:
    """What `requests_transition()` refuses, as a condition on OLD and NEW."""
    lines = (line.split(":") for line in TRANSITIONS.strip().splitlines())
    allowed = ", ".join(f"'{start} {status}'" for start, following in lines for status in following.split())
    changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in FIXED)
    return (
        f"(OLD.status IN ({ENDS}) AND OLD IS DISTINCT FROM NEW) OR {changed}"
        " OR (OLD.status <> NEW.status"
        f" AND OLD.kind || ' ' || OLD.status || ' ' || NEW.status <> ALL (ARRAY[{allowed}]))"
    )
