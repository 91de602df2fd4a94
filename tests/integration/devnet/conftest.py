"""One node with one deployment for the whole tier; every test finds it as it was deployed."""

from collections.abc import Iterator

import pytest

from tests.support.lido import Desk, rolled_back, start_desk


@pytest.fixture(scope="module")
def deployed() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


@pytest.fixture
def desk(deployed: Desk) -> Iterator[Desk]:
    with rolled_back(deployed) as found:
        yield found
