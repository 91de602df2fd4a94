"""Protocols on the module's node, with a database of its own for every test."""

from collections.abc import Callable

import pytest

from tests.support.lido import Desk
from tests.support.protocols import House, make_house


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("protocols")


@pytest.fixture
def house(desk: Desk, database_url: str) -> House:
    return make_house(desk, database_url)
