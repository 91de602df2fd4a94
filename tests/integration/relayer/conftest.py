"""A chain of its own for every test, begun anew on one node: a test that reorganises it must not do it to another's."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.anvil import Anvil, start_anvil
from tests.support.relayer import House, Node, make_house


@pytest.fixture(scope="package")
def anvil() -> Iterator[Anvil]:
    with start_anvil() as found:
        yield found


@pytest.fixture
def node(anvil: Anvil) -> Node:
    found = Node(anvil.url)
    found.rpc("anvil_reset")
    found.mine_by_hand()
    return found


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("relayer")


@pytest.fixture
def house(database_url: str, node: Node) -> House:
    return make_house(database_url, node)
