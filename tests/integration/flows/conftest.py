"""One node for the module, rolled back after every test; databases of its own for every test."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk, rolled_back, start_desk


@pytest.fixture(scope="module")
def deployed() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


@pytest.fixture
def desk(deployed: Desk) -> Iterator[Desk]:
    with rolled_back(deployed) as found:
        yield found


@pytest.fixture
def flows(desk: Desk, make_database: Callable[[str], str]) -> Iterator[Flows]:
    with running_flows(desk, make_database) as found:
        yield found
