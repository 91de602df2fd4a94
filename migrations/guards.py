"""SQL of the guards that refuse changes to what must never change, to the tables' owner too.

Migrations that have run must not change, so a change here is a new constant, not an edit.
"""

from migrations.sql_files import function

CREATE = function("refuse_change", "0001")
DROP = "DROP FUNCTION refuse_change()"


def append_only(table: str) -> tuple[str, ...]:
    """Statements that let a table be inserted into, and nothing else.

    Per statement: a change is refused even where no row is met, which lets a service prove it at every start.
    """
    return refuse("append_only", "UPDATE OR DELETE OR TRUNCATE", table)


def refuse(name: str, what: str, table: str, condition: str = "") -> tuple[str, ...]:
    """Statements of one guard; `condition` as in ``FOR EACH ROW WHEN (…)``.

    ALWAYS: an ordinary trigger sleeps under ``session_replication_role = replica``.
    """
    return (
        f"CREATE TRIGGER {name} BEFORE {what} ON {table} {condition} EXECUTE FUNCTION refuse_change()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
    )
