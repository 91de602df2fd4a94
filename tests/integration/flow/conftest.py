from collections.abc import Iterator

import pytest

from tests.support.postgres import Server
from tests.support.shop import Shop, open_shop


@pytest.fixture
def shop(postgres: Server) -> Iterator[Shop]:
    with open_shop(postgres.create("shop")) as opened:
        yield opened
