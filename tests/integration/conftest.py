"""A protocol on a node for whoever asks: one deployment for a process, found as it was deployed by every test."""

from collections.abc import Iterator

import pytest

from tests.support.lido import Desk, rolled_back, start_desk


@pytest.fixture(scope="session")
def deployed() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


@pytest.fixture
def desk(deployed: Desk) -> Iterator[Desk]:
    with rolled_back(deployed) as found:
        yield found
