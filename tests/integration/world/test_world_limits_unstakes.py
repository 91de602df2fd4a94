"""One unstake's impossibility is its own, a parked batch holds up nobody else, and a long step goes on where it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from apps.clients.shapes.pool import QuoteQuery
from apps.clients.shapes.protocols import UnsignedTransaction, WithdrawalItem
from apps.common.database import transaction
from apps.common.errors import InvalidInput
from apps.common.wei import ETHER
from apps.flow.lease import acquire
from apps.flow.outcome import Park
from apps.flow.runner import write
from apps.pool.errors import AmountTooLarge
from apps.pool.flows.batches import BatchFlow
from apps.pool.models import Batch, Request
from apps.pool.quotes.service import Quotes
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk
from tests.support.protocols import POOL
from tests.support.rationed import ration_rewards
from tests.support.raw import raw

MOST = 100_000 * ETHER
RICH = {"relayer": {"max_value_per_tx_wei": 10**24}}


@pytest.fixture
def flows(desk: Desk, make_database: Callable[[str], str], request: pytest.FixtureRequest) -> Iterator[Flows]:
    with running_flows(desk, make_database, **dict(getattr(request, "param", {}))) as found:
        yield found


def stake_all(flows: Flows, **stakes: int) -> None:
    for user, wei in stakes.items():
        flows.deposit(user, wei)
        flows.ask("stake", user, wei)
    flows.settle()


def until(flows: Flows, made: dict[str, Any], status: str, turns: int = 20) -> dict[str, Any]:
    for _ in range(turns):
        found = flows.request(made)
        if found["status"] == status:
            return found
        flows.turn()
        flows.desk.oracle.mine()
    raise AssertionError(flows.request(made))


@pytest.mark.parametrize("flows", [RICH], indirect=True)
def test_unstake__more_than_one_request_holds__refused_with_the_remedy_and_max_too(flows: Flows) -> None:
    stake_all(flows, whale=MOST + ETHER, ann=10 * ETHER)
    with pytest.raises(InvalidInput) as refused:
        flows.ask("unstake", "whale", MOST + 1)
    assert str(MOST) in str(refused.value.errors)
    with pytest.raises(AmountTooLarge) as too_large:
        flows.ask("unstake", "whale", "max")
    assert str(MOST) in str(too_large.value.detail)
    assert flows.balance("whale")["staked_wei"] == str(MOST + ETHER)
    assert Quotes(flows.context).quote(QuoteQuery(kind="unstake", amount_wei=MOST + 1)).maximum_wei == MOST
    most = flows.ask("unstake", "whale", MOST)  # a hundred withdrawals are asked for at once
    other = flows.ask("unstake", "ann", ETHER)
    assert len(until(flows, most, "waiting", 40)["withdrawals"]) == 100
    until(flows, other, "waiting", 40)
    assert flows.drifts() == {}


@pytest.mark.parametrize("flows", [RICH], indirect=True)
def test_unstake__one_queued_that_is_too_large__skipped_with_its_reason_and_the_others_go(flows: Flows) -> None:
    """As one of an earlier release, which took them."""
    stake_all(flows, whale=MOST + 2 * ETHER, ann=10 * ETHER)
    whale = flows.ask("unstake", "whale", ETHER)
    with transaction(flows.context.sessions) as session:
        session.execute(update(Request).where(Request.id == whale["id"]).values(amount_wei=MOST + 1))
    ann = flows.ask("unstake", "ann", ETHER)
    until(flows, ann, "waiting")
    found = flows.request(whale)
    assert (found["status"], found["reason"]["code"]) == ("queued", "unstake_above_limit")
    assert found["next"] == {"step": "batch", "due_at": None}


def test_unstake__another_batch_is_open__says_that_it_waits_for_it(flows: Flows) -> None:
    stake_all(flows, ann=10 * ETHER, bob=10 * ETHER)
    flows.ask("unstake", "ann", ETHER)
    flows.batching()
    bob = flows.ask("unstake", "bob", ETHER)
    flows.batching()
    found = flows.request(bob)
    assert (found["status"], found["reason"]["code"]) == ("queued", "batch_open")
    assert until(flows, bob, "waiting")["reason"] != found["reason"]


@pytest.mark.parametrize("step", ["batched", "requesting"])
def test_unstake__a_batch_is_parked__the_others_go_on_and_it_goes_on_when_it_is_retried(
    flows: Flows, step: str
) -> None:
    stake_all(flows, ann=10 * ETHER, bob=10 * ETHER)
    ann = flows.ask("unstake", "ann", ETHER)
    flows.batching()
    if step == "requesting":
        flows.batches()
    park(flows, step)
    bob = flows.ask("unstake", "bob", ETHER)
    until(flows, bob, "waiting")
    assert flows.request(ann)["status"] == "needs_attention"
    assert flows.drifts() == {}, "a parked batch is no drift"
    flows.service.retry(ann["id"])
    until(flows, ann, "waiting")
    flows.desk.oracle.finalize()
    flows.claims()
    flows.settle()
    assert {flows.request(made)["status"] for made in (ann, bob)} == {"completed"}
    assert flows.drifts() == {}


def test_unstake__thirty_users_and_rewards_is_cut_off_in_the_middle__goes_on_and_leaves(flows: Flows) -> None:
    users = [f"user-{number:02}" for number in range(30)]
    stake_all(flows, **dict.fromkeys(users, ETHER))
    flows.desk.oracle.rebase(ETHER)
    flows.walking()
    asked = [flows.ask("unstake", user, ETHER // 2) for user in users]
    flows.desk.oracle.rebase(ETHER)  # so that there is something to settle for each of them
    flows.walking()
    rewards = ration_rewards(flows, 20)
    flows.batching()
    for _ in range(4):
        rewards.renew()
        flows.batches()
    assert {flows.request(made)["status"] for made in asked} <= {"requesting", "waiting"}
    rewards.ration = 10**6
    rewards.renew()
    for made in asked:
        until(flows, made, "waiting")
    assert flows.drifts() == {}


def test_unstake__a_loss_between_two_attempts__is_borne_by_those_who_leave(flows: Flows) -> None:
    """Cut off after the settlement: what is lost before the next attempt comes off what they leave with."""
    users = [f"user-{number}" for number in range(8)]
    stake_all(flows, **dict.fromkeys(users, 10 * ETHER))
    asked = [flows.ask("unstake", user, 10 * ETHER) for user in users]
    rewards = ration_rewards(flows, 1)
    flows.batching()
    flows.batches()
    assert {flows.request(made)["status"] for made in asked} == {"batched"}
    total = raw(flows.context.protocols).state()["total_pooled_ether_wei"]
    rewards.ration = 10**6
    rewards.renew()
    flows.desk.oracle.rebase(-int(total) // 100)
    flows.walking()
    for made in asked:
        until(flows, made, "waiting")
    for made in asked:
        found = flows.request(made)
        assert sum(int(item["amount_wei"]) for item in found["withdrawals"]) < 10 * ETHER * 995 // 1000
    assert flows.drifts() == {}


def test_unstake__parked_with_a_request_that_may_still_be_mined__the_next_waits_until_it_is_known(flows: Flows) -> None:
    stake_all(flows, ann=10 * ETHER, bob=10 * ETHER)
    until(flows, flows.ask("unstake", "bob", ETHER), "waiting")  # so that the queue is approved
    flows.ask("unstake", "ann", ETHER)
    flows.batching()
    for _ in range(3):
        flows.batches()  # given to the relayer, which has not signed it yet
    park(flows, "requesting")
    bob = flows.ask("unstake", "bob", ETHER)
    flows.batching()
    assert flows.request(bob)["reason"]["code"] == "batch_open"
    waiting = raw(flows.context.relayer).transactions(status="queued")["items"]
    assert len(waiting) == 1
    flows.context.relayer.post(f"/v1/transactions/{waiting[0]['message_id']}/cancel", {})
    until(flows, bob, "waiting")
    assert flows.drifts() == {}


def test_unstake__parked_with_all_that_its_user_has_and_a_slashing_comes__bears_it_and_the_walk_goes_on(
    flows: Flows,
) -> None:
    stake_all(flows, ann=10 * ETHER, bob=10 * ETHER)
    ann = flows.ask("unstake", "ann", 10 * ETHER)
    flows.batching()
    park(flows, "batched")
    total = int(raw(flows.context.protocols).state()["total_pooled_ether_wei"])
    flows.desk.oracle.rebase(-total // 100)
    flows.walking()
    assert (flows.walk().status, flows.walk().reason) == ("walking", None)
    assert int(flows.request(ann)["amount_wei"]) < 10 * ETHER
    assert flows.drifts() == {}
    flows.service.retry(ann["id"])
    until(flows, ann, "waiting")
    assert flows.drifts() == {}


def test_unstake__a_request_of_many_that_would_revert__is_asked_for_in_halves(flows: Flows) -> None:
    stake_all(flows, ann=10 * ETHER, bob=10 * ETHER, cat=10 * ETHER)
    asked = [flows.ask("unstake", user, ETHER) for user in ("ann", "bob", "cat")]
    protocols = flows.context.protocols
    build = protocols.build_request_withdrawals

    def only_small(items: Sequence[WithdrawalItem]) -> UnsignedTransaction:
        # As where more than one together is too much for one transaction.
        return build([replace(items[0], amount_wei=2 * MOST)] if len(items) > 1 else items)

    protocols.build_request_withdrawals = only_small  # type: ignore[method-assign]
    for made in asked:
        until(flows, made, "waiting", 60)
    assert len({flows.request(made)["batch_id"] for made in asked}) == 3
    assert flows.drifts() == {}


def test_unstake__it_fails_again_and_again__slower_each_time_with_its_reason(flows: Flows) -> None:
    stake_all(flows, ann=10 * ETHER)
    ann = flows.ask("unstake", "ann", ETHER)
    pauses = []
    for _ in range(4):
        flows.desk.oracle.resume_queue()
        flows.batching()
        flows.batches()  # leaves the index
        flows.desk.oracle.pause_queue()
        flows.batches()  # cannot be built, and returns
        found = flows.request(ann)
        assert (found["status"], found["reason"]["code"]) == ("queued", "queue_paused")
        with transaction(flows.context.sessions) as session:
            pause = func.extract("epoch", Request.eligible_at - Request.updated_at)
            pauses.append(float(session.scalars(select(pause).where(Request.id == ann["id"])).one()))
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]
    flows.desk.oracle.resume_queue()
    until(flows, ann, "waiting")
    assert flows.drifts() == {}


def park(flows: Flows, step: str) -> None:
    """Park the open unstake batch as the engine does."""
    with transaction(flows.context.sessions) as session:
        batch_id = session.scalars(select(Batch.id).where(Batch.pool_id == POOL, Batch.status == step)).one()
    (batch,) = acquire(flows.context.sessions, Batch, 60.0, row_id=batch_id, early=True)
    write(BatchFlow(flows.context), batch, Park({"code": "attempts_exhausted", "detail": "For a test."}))
