"""All services on the module's node, with databases of their own for every test."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk


@pytest.fixture
def flows(desk: Desk, make_database: Callable[[str], str]) -> Iterator[Flows]:
    with running_flows(desk, make_database) as found:
        yield found
