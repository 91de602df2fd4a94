"""A slashing that takes more from the operator's stETH than the users have: most of it is the company's own."""

from typing import Any

import pytest

from apps.clients.base import CallRefused
from apps.common.wei import ETHER, GWEI
from tests.support.flows import Flows
from tests.support.protocols import POOL
from tests.support.raw import raw


def clean(flows: Flows) -> bool:
    """Every line of the reconciliation agrees, and so do both audits."""
    return (
        flows.reconcile()["verdict"] == "ok"
        and bool(raw(flows.ledger).audit(POOL)["ok"])
        and bool(raw(flows.context.rewards).audit(POOL)["ok"])
    )


def leave_all_but(flows: Flows, user: str, wei: int) -> None:
    position = flows.position(user)
    flows.ask("unstake", user, int(position["staked_wei"]) + int(position["pending_wei"]) - wei)


def last_accrual(flows: Flows) -> dict[str, int]:
    items = flows.context.rewards.get("/v1/events", kind="accrual", limit=200)["items"]
    return {name: int(items[-1][name]) for name in ("new_rewards_wei", "distributed_wei", "parked_wei", "weight_wei")}


def release(flows: Flows, name: str, wei: int) -> dict[str, Any]:
    body = {"message_id": name, "pool_id": POOL, "amount_wei": str(wei)}
    return flows.context.rewards.post("/v1/parked/release", body)


def in_books(flows: Flows, user: str) -> tuple[int, int]:
    found = flows.balance(user)
    return int(found["staked_wei"]), int(found["unstaking_wei"])


@pytest.mark.parametrize("flows_settings", [{"reward_fee_bps": 1000}], indirect=True)
def test_slashing__users_hold_dust_and_the_company_the_rest__walk_passes_and_the_rest_is_parked(flows: Flows) -> None:
    desk, rewards = flows.desk, flows.context.rewards
    flows.stakes({"ann": 10 * ETHER, "bob": 5 * ETHER})
    desk.oracle.rebase(100 * ETHER)
    desk.oracle.stranger_transfer(desk.operator, ETHER)
    flows.settle()
    leave_all_but(flows, "ann", 5_000)
    leave_all_but(flows, "bob", 700)
    flows.settle()
    asked = flows.ask("unstake", "bob", 700)
    flows.requests()
    before = desk.steth(desk.operator)
    desk.oracle.rebase(-1_000 * ETHER)
    lost = before - desk.steth(desk.operator)
    flows.settle()

    assert lost > GWEI > 5_700
    parked = 5_700 - lost
    assert last_accrual(flows) == {
        "new_rewards_wei": -lost, "distributed_wei": -5_700, "parked_wei": parked, "weight_wei": 5_700,
    }  # fmt: skip
    assert (flows.walk().status, flows.walk().cursor_block) == ("walking", desk.head() - 1)
    assert (flows.request(asked)["status"], flows.request(asked)["reason"]["code"]) == ("failed", "lost_to_slashing")
    system = raw(flows.ledger).totals(POOL)["system"]
    assert int(raw(rewards).pool(POOL)["parked_wei"]) == parked
    assert 0 <= int(system["@rewards"]) - parked <= 2  # the index's dust, one wei at most of each who had stake
    assert int(system["@fees"]) > ETHER
    assert [in_books(flows, user)[0] for user in ("ann", "bob")] == [0, 0]
    assert clean(flows)

    # Whoever comes later owes nothing of it, until it is released, and then no more than they have.
    flows.stakes({"cat": 1_000, "dan": 10 * ETHER})
    desk.oracle.rebase(50 * ETHER)
    flows.settle()
    assert int(flows.position("dan")["staked_wei"]) == 10 * ETHER
    assert int(flows.position("dan")["pending_wei"]) > 0
    assert clean(flows)
    release(flows, "release:1", parked)
    flows.walking()
    assert int(raw(rewards).pool(POOL)["parked_wei"]) == 0
    for user in ("cat", "dan"):
        position = flows.position(user)
        assert in_books(flows, user) == (int(position["staked_wei"]), int(position["exiting_wei"]))
        assert int(position["pending_wei"]) == 0
    assert clean(flows)


def test_release__more_than_the_users_of_today_have__refused_and_the_books_are_as_before(flows: Flows) -> None:
    desk, rewards = flows.desk, flows.context.rewards
    desk.oracle.stranger_transfer(desk.operator, ETHER)
    desk.oracle.rebase(-1_000 * ETHER)
    flows.settle()
    parked = int(raw(rewards).pool(POOL)["parked_wei"])
    assert parked < -GWEI
    flows.stake("ann", 1_000)
    before = rewards.pool(POOL), flows.position("ann"), flows.ledger.totals(POOL)
    with pytest.raises(CallRefused) as refused:
        release(flows, "release:1", parked)
    assert refused.value.code == "loss_exceeds_position"
    assert "a loss of 1000 wei at most" in refused.value.detail
    assert (rewards.pool(POOL), flows.position("ann"), flows.ledger.totals(POOL)) == before
    assert clean(flows)
