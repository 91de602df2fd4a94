"""Real parts for every tier: one PostgreSQL a session, a database of its own for every test that asks."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migrations import runner
from tests.support.postgres import Server, start_postgres

TIERS = ("unit", "property", "integration", "crash", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's tier is the folder it lies in."""
    root = Path(__file__).parent
    for item in items:
        tier = item.path.relative_to(root).parts[0]
        assert tier in TIERS, f"{item.path} lies in no tier"
        item.add_marker(getattr(pytest.mark, tier))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with start_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_templates() -> dict[str, str]:
    """Names of the databases that each service's tests are copied from."""
    return {}


@pytest.fixture(scope="session")
def make_database(postgres: Server, migrated_templates: dict[str, str]) -> Callable[[str], str]:
    """``make_database(service)`` returns the URL of a fresh, migrated database."""

    def make(service: str) -> str:
        if service not in migrated_templates:
            url = postgres.create(f"template_{service}")
            runner.upgrade(service, url)
            migrated_templates[service] = url.rsplit("/", 1)[1]
        return postgres.create(service, template=migrated_templates[service])

    return make
