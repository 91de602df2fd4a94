"""Pauses and the stake limit through all services: requests wait in their place, with reason and next try to be seen."""

from collections.abc import Callable
from datetime import datetime

import pytest

from apps.clients.shapes.walk import MetricsQuery
from apps.common.shapes import dump
from apps.common.wei import ETHER
from tests.support.flows import Flows
from tests.support.raw import raw


def codes(flows: Flows, made: dict[str, object]) -> list[str]:
    """The reasons in a request's timeline, in order."""
    return [entry["reason"]["code"] for entry in flows.request(made)["timeline"] if entry["reason"]]


@pytest.mark.parametrize(
    ("off", "on", "code"),
    [
        ("pause_staking", "resume_staking", "staking_paused"),
        pytest.param("stop", "resume", "protocol_stopped", marks=pytest.mark.prove),
    ],
)
def test_stake__switch_off__waits_with_reason_and_next_try_and_then_completes(
    flows: Flows, off: str, on: str, code: str
) -> None:
    getattr(flows.desk.oracle, off)()
    flows.deposit("ann", 5 * ETHER)
    asked = flows.ask("stake", "ann", 5 * ETHER)
    for _ in range(3):
        flows.turn()
    found = flows.request(asked)
    assert (found["status"], found["reason"]["code"]) == ("queued", code)
    assert found["next"]["step"] == "batch"
    assert datetime.fromisoformat(found["next"]["due_at"]).tzinfo is not None
    assert codes(flows, asked) == [code]  # told once, not at every look
    getattr(flows.desk.oracle, on)()
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    assert flows.drifts() == {}


@pytest.mark.parametrize(
    ("off", "on", "code"),
    [
        ("pause_queue", "resume_queue", "queue_paused"),
        pytest.param("stop", "resume", "protocol_stopped", marks=pytest.mark.prove),
    ],
)
def test_unstake__switch_off__waits_and_goes_on_bearing_losses_and_then_leaves(
    flows: Flows, off: str, on: str, code: str
) -> None:
    desk = flows.desk
    flows.stake("ann", 5 * ETHER)
    getattr(desk.oracle, off)()
    asked = flows.ask("unstake", "ann", "max")
    for _ in range(3):
        flows.turn()
    found = flows.request(asked)
    assert (found["status"], found["reason"]["code"], found["next"]["step"]) == ("queued", code, "batch")
    getattr(desk.oracle, on)()
    desk.oracle.rebase(-900 * ETHER)
    flows.settle()
    left = flows.request(asked)
    assert left["status"] == "waiting"
    assert int(left["amount_wei"]) < 5 * ETHER * 995 // 1000
    assert flows.drifts() == {}


def test_queue__paused_after_leaving_the_index__weight_comes_back_and_the_request_returns(flows: Flows) -> None:
    flows.stake("ann", 5 * ETHER)
    asked = flows.ask("unstake", "ann", 2 * ETHER)
    flows.batching()
    flows.batches()  # out of the index
    assert flows.request(asked)["status"] == "requesting"
    flows.desk.oracle.pause_queue()
    for _ in range(6):
        flows.turn()
    found = flows.request(asked)
    assert (found["status"], found["reason"]["code"]) == ("queued", "queue_paused")
    assert flows.position("ann")["exiting_wei"] == str(2 * ETHER)
    assert flows.drifts() == {}
    flows.desk.oracle.resume_queue()
    flows.settle()
    assert flows.request(asked)["status"] == "waiting"


def test_stake_limit__room_for_some__whole_requests_that_fit_go_and_the_rest_waits_in_its_place(flows: Flows) -> None:
    flows.desk.oracle.set_stake_limit(100 * ETHER, 0)
    asked = []
    for user, wei in (("ann", 40), ("bob", 50), ("cat", 30), ("dan", 5)):
        flows.deposit(user, wei * ETHER)
        asked.append(flows.ask("stake", user, wei * ETHER))
    for _ in range(8):
        flows.turn()
    found = [flows.request(made) for made in asked]
    # 5 would fit, but nobody overtakes a large one in front for ever.
    assert [item["status"] for item in found] == ["completed", "completed", "queued", "queued"]
    assert found[0]["batch_id"] == found[1]["batch_id"]
    assert [item["reason"]["code"] for item in found[2:]] == ["stake_limit", "stake_limit"]
    assert found[2]["next"]["step"] == "batch"
    flows.desk.oracle.set_stake_limit(100 * ETHER, 10)
    flows.settle()
    assert {flows.request(made)["status"] for made in asked} == {"completed"}
    assert flows.drifts() == {}


@pytest.mark.parametrize(
    ("switch", "code", "estimated"),
    [
        (None, "withdrawal_queue", True),
        (lambda flows: flows.desk.oracle.set_bunker(active=True), "bunker", False),
        pytest.param(lambda flows: flows.desk.oracle.pause_queue(), "queue_paused", False, marks=pytest.mark.prove),
        pytest.param(lambda flows: flows.desk.oracle.stop(), "protocol_stopped", False, marks=pytest.mark.prove),
    ],
)
def test_waiting__whatever_holds_it_up__reason_and_estimate_are_shown(
    flows: Flows, *, switch: Callable[[Flows], None] | None, code: str, estimated: bool
) -> None:
    desk = flows.desk
    flows.stake("ann", 5 * ETHER)
    desk.rpc("evm_increaseTime", 86_400)
    desk.oracle.rebase(ETHER)
    asked = flows.ask("unstake", "ann", 2 * ETHER)
    flows.settle()
    if switch is not None:
        switch(flows)
    for _ in range(2):
        flows.claims()
    found = flows.request(asked)
    assert (found["status"], found["reason"]["code"], found["next"]["step"]) == ("waiting", code, "finalize")
    assert codes(flows, asked) == [code]
    if not estimated:
        assert found["next"]["due_at"] is None
        return
    now = datetime.fromisoformat(raw(flows.context.protocols).state()["block_time"])
    assert 0 < (datetime.fromisoformat(found["next"]["due_at"]) - now).total_seconds() < 2 * 90_000
    desk.oracle.finalize()
    flows.claims()
    flows.settle()
    assert (flows.request(asked)["status"], flows.request(asked)["reason"]) == ("completed", None)


def test_metrics__each_walk__a_snapshot_with_its_delta_and_reward(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 5 * ETHER)
    flows.reconcile()
    held = desk.steth(desk.operator)
    desk.oracle.rebase(30 * ETHER)
    gained = desk.steth(desk.operator) - held
    desk.oracle.stranger_submit(7 * ETHER)
    flows.reconcile()
    last, before = dump(flows.reads.protocol_metrics(MetricsQuery(limit=2)))["items"]
    ether, shares = desk.lido.getTotalPooledEther().call(), desk.lido.getTotalShares().call()
    assert (last["total_pooled_ether_wei"], last["total_shares"]) == (str(ether), str(shares))
    assert last["share_rate"] == str(ether * 10**27 // shares)
    assert int(last["delta_wei"]) == ether - int(before["total_pooled_ether_wei"]) == 37 * ETHER
    assert last["reward_wei"] == str(gained)
    assert last["block_number"] > before["block_number"]
