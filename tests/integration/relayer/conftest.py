"""A node of its own for every test.

A test that reorganises a chain must not do it to another's, and a reset leaves clock and block gas limit as they were.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.support.anvil import start_anvil
from tests.support.relayer import House, Node, make_house


@pytest.fixture
def node() -> Iterator[Node]:
    with start_anvil() as anvil:
        found = Node(anvil.url)
        found.mine_by_hand()
        yield found


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("relayer")


@pytest.fixture
def house(database_url: str, node: Node) -> House:
    return make_house(database_url, node)
