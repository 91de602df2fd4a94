"""The functions in a migrated database are those that stand as files beside the service: a changed file needs a migration."""

import re
from pathlib import Path

import psycopg2
import pytest

from migrations import runner
from tests.support.postgres import Server

APPS = Path(__file__).parents[2] / "apps"
SHARED = APPS / "common" / "sql"
# Written from `apps/pool/states.py` by a migration; `test_pool_states.py` holds the two together.
FROM_CODE = {"requests_transition", "batches_transition"}
DEFINITIONS = (
    "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY proname"
)


def present_state(service: str) -> dict[str, str]:
    """The statements that replace each function by what its file says, by name."""
    texts = {
        path.stem: path.read_text() for folder in (SHARED, APPS / service / "sql") for path in folder.glob("*.sql")
    }
    functions = {name: text for name, text in texts.items() if "CREATE FUNCTION" in text}
    assert all(re.search(rf"^CREATE FUNCTION {name}\(", text, re.MULTILINE) for name, text in functions.items())
    return {name: text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) for name, text in functions.items()}


@pytest.mark.parametrize("service", ["ledger", "pool", "rewards"])
def test_functions__after_all_migrations__are_the_files_beside_the_service(postgres: Server, service: str) -> None:
    url = postgres.create(f"functions_{service}")
    runner.upgrade(service, url)
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute(DEFINITIONS)
        migrated = dict(cursor.fetchall())
        for statement in present_state(service).values():
            cursor.execute(statement)
        cursor.execute(DEFINITIONS)
        present = dict(cursor.fetchall())
    connection.close()
    # Written by migrations themselves; other tests hold what they say.
    migrated, present = (
        {name: text for name, text in found.items() if name not in FROM_CODE} for found in (migrated, present)
    )
    assert set(migrated) == set(present_state(service))
    assert migrated == present
