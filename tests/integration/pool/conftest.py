"""A pool on a fresh database for each test: alone for its rows and flows, with real books for its endpoints."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.pool import FullHouse, PoolHouse, full_house, pool_house


@pytest.fixture
def house(make_database: Callable[[str], str]) -> PoolHouse:
    return pool_house(make_database("pool"))


@pytest.fixture
def full(make_database: Callable[[str], str]) -> Iterator[FullHouse]:
    with full_house(make_database) as found:
        yield found
