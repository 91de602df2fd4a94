"""REWARD_SOURCE=total_pooled_ether: the plain formula, right where the pool is the protocol's only holder, else refused."""

from collections.abc import Callable, Iterator

import pytest

from apps.common.wei import ETHER
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk, rolled_back, start_desk
from tests.support.protocols import POOL
from tests.support.raw import raw


@pytest.fixture(scope="module")
def alone() -> Iterator[Desk]:
    """A protocol whose every share is the operator's."""
    with start_desk(sole_holder=True) as desk:
        yield desk


@pytest.fixture
def flows(alone: Desk, make_database: Callable[[str], str]) -> Iterator[Flows]:
    with rolled_back(alone), running_flows(alone, make_database, reward_source="total_pooled_ether") as found:
        yield found


def accrued(flows: Flows) -> int:
    return int(raw(flows.context.rewards).pool(POOL)["accrued_wei"])


def refused(flows: Flows) -> bool:
    flows.walking()
    walk = flows.walk()
    return walk.status == "halted" and (walk.reason or {})["code"] == "reward_source_refused"


def test_total_pooled_ether__operator_and_queue_hold_all_and_no_fee__the_totals_change_net_of_flows(
    flows: Flows,
) -> None:
    oracle = flows.desk.oracle
    oracle.set_fee(0)
    flows.stake("ann", 50 * ETHER)
    oracle.rebase(3 * ETHER)
    flows.settle()
    assert accrued(flows) == 3 * ETHER
    asked = flows.ask("unstake", "ann", 20 * ETHER)
    flows.settle()
    oracle.rebase(-2 * ETHER)  # borne by the queue's shares too
    flows.settle()
    assert accrued(flows) == ETHER
    oracle.rebase(ETHER, finalize_up_to=1)
    flows.claims()
    flows.settle()
    # What the withdrawal was paid less than its face is no longer anybody's loss but the leaver's.
    done = flows.request(asked)
    assert (done["status"], accrued(flows)) == ("completed", 2 * ETHER)
    flows.stake("bob", 7 * ETHER)
    assert accrued(flows) == 2 * ETHER


def test_total_pooled_ether__the_protocol_takes_a_fee__refused_by_halting_and_nothing_accrued(
    desk: Desk, make_database: Callable[[str], str]
) -> None:
    with running_flows(desk, make_database, reward_source="total_pooled_ether") as flows:
        flows.stake("ann", 50 * ETHER)
        desk.oracle.rebase(3 * ETHER)
        assert refused(flows)
        assert accrued(flows) == 0


@pytest.mark.prove
def test_total_pooled_ether__a_stranger_comes_later__halts_at_the_first_rebase_after(flows: Flows) -> None:
    flows.desk.oracle.set_fee(0)
    flows.stake("ann", 50 * ETHER)
    flows.desk.oracle.rebase(3 * ETHER)
    flows.settle()
    flows.desk.oracle.stranger_submit(100)
    flows.desk.oracle.rebase(3 * ETHER)
    assert refused(flows)
    assert accrued(flows) == 3 * ETHER
