"""All services on the module's node, with databases of their own for every test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk


@pytest.fixture
def flows_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of the pool that a test asks for, by indirect parametrization."""
    return dict(getattr(request, "param", {}))


@pytest.fixture
def flows(desk: Desk, make_database: Callable[[str], str], flows_settings: dict[str, Any]) -> Iterator[Flows]:
    with running_flows(desk, make_database, **flows_settings) as found:
        yield found
