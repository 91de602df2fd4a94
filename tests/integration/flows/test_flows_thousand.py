"""A thousand operations of our own: their rounding is normal and no drift, one wei too few is."""

import pytest

from apps.common.wei import ETHER
from apps.devnet.deployment import set_balance
from tests.support.flows import Flows
from tests.support.protocols import POOL
from tests.support.raw import raw

TURNS = 5
USERS = 100  # as many as one request takes, and one claim


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_reconcile__after_a_thousand_operations__no_drift_and_one_wei_too_few_is_seen(flows: Flows) -> None:
    desk = flows.desk
    operations = 0
    for turn in range(TURNS):
        users = [f"user-{turn}-{number}" for number in range(USERS)]
        for number, user in enumerate(users):
            wei = ETHER // 7 + number * 12_345_678_901
            flows.deposit(user, wei)
            flows.ask("stake", user, wei)
        flows.settle()
        desk.oracle.rebase(31 * ETHER + 7 * turn)  # a rate at which every share is a fraction of a wei
        flows.settle()
        leaving = [flows.ask("unstake", user, "max") for user in users]
        flows.settle()
        desk.oracle.finalize()
        flows.claims()
        flows.settle()
        paid = [flows.request(request) for request in leaving]
        assert {request["status"] for request in paid} == {"completed"}
        operations += sum(2 * len(request["withdrawals"]) for request in paid) + 1
    assert operations >= 1_000
    assert flows.drifts() == {}
    rounding = int(raw(flows.ledger).totals(POOL)["system"]["@rounding"])
    assert 0 < abs(rounding) <= 2 * operations
    held = desk.balance(desk.operator)
    set_balance(desk.web3, desk.operator, held - 1)
    assert flows.drifts() == {"eth": -1}
