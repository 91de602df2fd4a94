"""Each database's migrations go up, down and up, and leave what the models say."""

import psycopg2
import pytest

from migrations import runner
from tests.support.postgres import Server


def tables(url: str) -> set[str]:
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        found = {str(row[0]) for row in cursor.fetchall()}
        cursor.execute("SELECT typname FROM pg_type WHERE typtype = 'd'")
        found |= {str(row[0]) for row in cursor.fetchall() if row[0] in {"wei", "signed_wei"}}
    connection.close()
    return found


@pytest.mark.parametrize("service", runner.SERVICES)
def test_migrations__up_down_up__models_and_database_agree(postgres: Server, service: str) -> None:
    url = postgres.create(f"migrations_{service}")
    runner.upgrade(service, url)
    runner.check(service, url)
    first = tables(url)
    assert len(first) > 2
    runner.downgrade(service, url)
    assert tables(url) <= {"alembic_version"}
    runner.upgrade(service, url)
    runner.check(service, url)
    assert tables(url) == first
