"""One house for all that is driven from the OpenAPI documents. schemathesis comes last: it leaves nobody as they were."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.endpoints.world import World, living_world
from tests.support.lido import start_desk


@pytest.fixture(scope="session")
def world(make_database: Callable[[str], str]) -> Iterator[World]:
    with start_desk() as desk, living_world(desk, make_database) as made:
        yield made
