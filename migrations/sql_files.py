"""SQL functions as migrations load them: numbered copies of the files that stand in their present state beside a service.

``apps/<service>/sql/<function>.sql`` is what is in force. A migration that changes a function copies the new text to
``migrations/<service>/sql/<revision>/`` and loads it from there, because what a migration does must never change.
`tests/integration/test_sql_functions.py` fails where the two differ.
"""

from pathlib import Path

_HERE = Path(__file__).parent


def function(name: str, revision: str, service: str = "") -> str:
    """The statement that creates a function as it was at a revision; without `service` one that several share."""
    return (_HERE / service / "sql" / revision / f"{name}.sql").read_text(encoding="utf-8")
