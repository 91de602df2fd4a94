"""One house for a module: all services on one node, found by each test as the one before left it."""

from collections.abc import Callable, Iterator

import pytest
from web3 import Web3

from apps.common.wei import ETHER
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk, rolled_back
from tests.support.payouts import allow, payee


@pytest.fixture(scope="module")
def flows(deployed: Desk, make_database: Callable[[str], str]) -> Iterator[Flows]:
    limits = {
        "payout_user_day_limit_wei": 20 * ETHER,
        "payout_day_limit_wei": 100 * ETHER,
        "payout_four_eyes_wei": 10 * ETHER,
    }
    with rolled_back(deployed) as desk, running_flows(desk, make_database, **limits) as found:
        yield found


@pytest.fixture
def user(flows: Flows, request: pytest.FixtureRequest) -> str:
    """A user of the test's own, with 30 ETH and an address that can be paid."""
    name = Web3.keccak(text=request.node.name).hex()[:12]
    flows.deposit(name, 30 * ETHER)
    allow(flows, name, payee(name))
    return name
