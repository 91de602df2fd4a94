"""The history of flows that ended long ago may be trimmed, by one function and in no other way.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

from migrations import guards
from migrations.sql_files import function

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

FUNCTIONS = ("flow_is_over", "keep_history", "trim_flow_events")


def upgrade() -> None:
    for name in FUNCTIONS:
        op.execute(function(name, "0007", "pool"))
    # The new guards stand before the old one goes: at no moment is the table without.
    op.execute("CREATE TRIGGER kept BEFORE UPDATE OR DELETE OR TRUNCATE ON flow_events EXECUTE FUNCTION keep_history()")
    op.execute("CREATE TRIGGER kept_row BEFORE DELETE ON flow_events FOR EACH ROW EXECUTE FUNCTION keep_history()")
    for name in ("kept", "kept_row"):
        op.execute(f"ALTER TABLE flow_events ENABLE ALWAYS TRIGGER {name}")
    op.execute("DROP TRIGGER append_only ON flow_events")


def downgrade() -> None:
    for statement in guards.append_only("flow_events"):
        op.execute(statement)
    for name in ("kept_row", "kept"):
        op.execute(f"DROP TRIGGER {name} ON flow_events")
    op.execute("DROP FUNCTION trim_flow_events(int, bigint, int)")
    op.execute("DROP FUNCTION keep_history()")
    op.execute("DROP FUNCTION flow_is_over(text, text, timestamptz)")
