"""Every process of a life killed at every boundary, before and after each commit, call and step: each effect once, no wei off."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from apps.common.wei import ETHER
from tests.support.cutting import Cutting, cutting, post, run_task
from tests.support.flows import Flows
from tests.support.ratchet import BATCHES, BATCHING, CLAIMS, REQUESTS

BOUNDARIES = {
    "call.sending", "call.answered", "transaction.committing", "transaction.committed", "flow.leased", "flow.stepped",
    "flow.written",
}  # fmt: skip
# The others of the relayer's follow a commit in which something has moved, and are not come to again.
SIGNING = {"relayer.assigning", "relayer.sending", "relayer.delivered"}


@pytest.fixture
def house(flows: Flows, tmp_path: Path) -> Iterator[Cutting]:
    with cutting(flows, tmp_path) as found:
        yield found


def ask(house: Cutting, path: str, user: str, before: Callable[[], object] = lambda: None, **body: str) -> int:
    """A POST for each of its boundaries, killed there, sent again as a BFF does, and finished by a worker; `before` each of
    them. Two more are left to one worker. Returns how many were made."""

    def one(number: int) -> partial[None]:
        return partial(post, path, {"user_id": user, "message_id": f"{user}:{number}", **body})

    number = 1
    before()
    while house.run(one(number), f"*:{number}") is not None:
        house.run(one(number))
        house.run(partial(run_task, REQUESTS))
        number += 1
        before()
    for more in (number + 1, number + 2):
        assert house.run(one(more), "call.sending") is not None
    return number + 2


def queued(house: Cutting, kind: str) -> str:
    """A queued request of the kind."""
    found = house.watch.ask("SELECT id FROM requests WHERE kind = %s AND status = 'queued' ORDER BY id LIMIT 1", kind)
    return str(found[0][0])


def come_to_nothing(house: Cutting, purpose: str) -> None:
    """Let the next batch's transaction be cancelled at the relayer before it is signed."""
    for task in (BATCHING, BATCHES, BATCHES, BATCHES):
        house.task(task)
    ((name,),) = house.watch.ask("SELECT message_id FROM batch_transactions WHERE purpose = %s", purpose)
    house.flows.context.relayer.post(f"/v1/transactions/{name}/cancel", {})


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_reward_claim__killed_at_every_boundary__claimed_once_and_booked_once(house: Cutting) -> None:
    flows = house.flows
    flows.stake("ann", 10 * ETHER)

    def gain() -> None:
        flows.desk.oracle.rebase(ETHER)
        flows.settle()

    made = ask(house, "/v1/reward-claims", "ann", gain)
    house.settle()
    assert made > 8
    assert house.cuts.total() > made + 15
    assert house.cuts.keys() >= BOUNDARIES - {
        "flow.written"
    }  # what was written last has moved, and is not come to again
    house.watch.assert_right(completed=made + 1)
    ((told,),) = house.watch.ask("SELECT sum(settled_wei)::bigint FROM requests WHERE kind = 'reward_claim'")
    assert str(told) == flows.position("ann")["claimed_wei"] != "0", "each request tells of what it claimed"


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_stake__killed_at_every_boundary__staked_once_and_the_cancelled_one_given_back(house: Cutting) -> None:
    house.flows.deposit("ann", 100 * ETHER)
    made = ask(house, "/v1/stakes", "ann", amount_wei=str(ETHER))
    while house.watch.due(REQUESTS):
        house.task(REQUESTS)
    house.cut("cancel", partial(post, f"/v1/requests/{queued(house, 'stake')}/cancel"))
    house.settle()
    assert made > 8
    assert house.cuts.total() > 100
    assert house.cuts.keys() >= BOUNDARIES | SIGNING
    house.watch.assert_right(completed=made - 1, cancelled=1)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_stake_batch__comes_to_nothing_and_killed_at_every_boundary__given_back_once(house: Cutting) -> None:
    flows = house.flows
    for number in range(3):
        flows.deposit("ann", ETHER + number)
        flows.ask("stake", "ann", ETHER + number)
    come_to_nothing(house, "submit")
    house.settle()
    assert house.cuts.total() > 50
    assert flows.balance("ann")["available_wei"] == str(3 * ETHER + 3)
    house.watch.assert_right(failed=3)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_unstake__killed_at_every_boundary__paid_once_what_the_chain_paid(house: Cutting) -> None:
    flows = house.flows
    flows.stake("ann", 30 * ETHER)
    flows.stake("bob", 30 * ETHER)
    flows.desk.oracle.rebase(30 * ETHER)
    flows.settle()
    made = ask(house, "/v1/unstakes", "ann", amount_wei=str(ETHER))
    while house.watch.due(REQUESTS):
        house.task(REQUESTS)
    house.cut("cancel", partial(post, f"/v1/requests/{queued(house, 'unstake')}/cancel"))
    house.settle()
    flows.desk.oracle.finalize()
    house.task(CLAIMS)
    house.settle()
    assert house.cuts.total() > 150
    assert house.cuts.keys() >= BOUNDARIES | SIGNING
    house.watch.assert_right(completed=made + 1, cancelled=1)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_unstake_batch__comes_to_nothing_and_killed_at_every_boundary__weight_restored_once_and_paid(
    house: Cutting,
) -> None:
    flows = house.flows
    flows.stake("ann", 30 * ETHER)
    for _ in range(2):
        flows.ask("unstake", "ann", ETHER)
    come_to_nothing(house, "approve")
    house.settle()
    flows.desk.oracle.finalize()
    house.task(CLAIMS)
    house.settle()
    assert house.cuts.total() > 150
    house.watch.assert_right(completed=3)
