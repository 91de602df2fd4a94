"""SQL of the three number domains; see `apps.common.wei` for why ``NUMERIC(78,0)`` is not one of them.

Migrations that have run must not change, so a change here is a new constant, not an edit.
"""

CREATE = (
    f"CREATE DOMAIN wei AS numeric CHECK (scale(VALUE) = 0 AND VALUE >= 0 AND VALUE < {2**256})",
    f"CREATE DOMAIN signed_wei AS numeric CHECK (scale(VALUE) = 0 AND abs(VALUE) < {2**256})",
    "CREATE DOMAIN scaled AS numeric CHECK (scale(VALUE) = 0 AND abs(VALUE) < 1e116)",
)
DROP = ("DROP DOMAIN wei", "DROP DOMAIN signed_wei", "DROP DOMAIN scaled")
