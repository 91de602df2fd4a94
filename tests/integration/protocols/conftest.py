"""One node with one deployment for the module, rolled back after every test; a database of its own for every test."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.lido import Desk, rolled_back, start_desk
from tests.support.protocols import House, make_house


@pytest.fixture(scope="module")
def deployed() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


@pytest.fixture
def desk(deployed: Desk) -> Iterator[Desk]:
    with rolled_back(deployed) as found:
        yield found


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("protocols")


@pytest.fixture
def house(desk: Desk, database_url: str) -> House:
    return make_house(desk, database_url)
