"""One house for a module: all services on one node, found by each test as the one before left it."""

from collections.abc import Callable, Iterator

import pytest

from apps.common.wei import ETHER
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk


@pytest.fixture(scope="module")
def flows(deployed: Desk, make_database: Callable[[str], str]) -> Iterator[Flows]:
    limits = {
        "payout_user_day_limit_wei": 20 * ETHER,
        "payout_day_limit_wei": 100 * ETHER,
        "payout_four_eyes_wei": 10 * ETHER,
    }
    with running_flows(deployed, make_database, **limits) as found:
        yield found
