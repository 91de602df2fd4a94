"""A pool on a fresh database for each test: alone for its rows and flows, with real books for its endpoints."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.pool import FullHouse, PoolHouse, full_house, pool_house
from tests.support.receiver import Receiver, receiving
from tests.support.webhooks import Hooks


@pytest.fixture
def house(make_database: Callable[[str], str]) -> PoolHouse:
    return pool_house(make_database("pool"))


@pytest.fixture
def full(make_database: Callable[[str], str]) -> Iterator[FullHouse]:
    with full_house(make_database) as found:
        yield found


@pytest.fixture(scope="module")
def house_of_hooks(make_database: Callable[[str], str]) -> PoolHouse:
    return pool_house(make_database("pool"))


@pytest.fixture
def hooks(house_of_hooks: PoolHouse) -> Iterator[Hooks]:
    """A module's pool, and no webhook of another test."""
    house_of_hooks.hints.clear()
    found = Hooks(house_of_hooks, house_of_hooks.client())
    yield found
    found.stop_all()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found
