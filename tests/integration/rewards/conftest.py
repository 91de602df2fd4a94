"""A rewards service on a database of its own for every test."""

from collections.abc import Callable

import pytest

from tests.support.rewards import House, make_house


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("rewards")


@pytest.fixture
def house(database_url: str) -> House:
    """No fee."""
    return make_house(database_url)
