"""The five services, each started once for the folder by its own command."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.lido import Desk, start_desk
from tests.support.web import Service, five_services


@pytest.fixture(scope="package")
def house_desk() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


@pytest.fixture(scope="package")
def services(house_desk: Desk, make_database: Callable[[str], str]) -> Iterator[dict[str, Service]]:
    with five_services(house_desk, make_database) as started:
        yield started


@pytest.fixture(scope="package")
def ledger(services: dict[str, Service]) -> Service:
    return services["ledger"]
