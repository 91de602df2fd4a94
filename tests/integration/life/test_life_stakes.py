"""Stakes, rebases and unstakes on a whole stack, wei by wei, against the chain itself."""

from typing import Any

import pytest
import requests
from celery import Celery
from web3 import Web3

from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.local.bff import Bff
from apps.local.stack import Stack
from tests.support.raw import raw

STAKE = 3 * ETHER // 10


def stake(bff: Bff, users: list[str], amount_wei: int, extra_wei: int = 0) -> list[dict[str, Any]]:
    """Deposit and stake for each user, and wait for the end."""
    for user in users:
        bff.deposit(user, amount_wei + extra_wei, f"deposit:{user}")
    made = [bff.clients.pool.stake(f"stake:{user}", user, amount_wei) for user in users]
    return bff.finish(made)


def staked(bff: Bff, user: str) -> int:
    """What the ledger says, after checking that the reward index says the same."""
    found = bff.portfolio(user)
    assert found["balance"]["staked_wei"] == found["position"]["staked_wei"]
    return int(found["balance"]["staked_wei"])


def steth_at(bff: Bff, block: int) -> int:
    operator = Web3.to_checksum_address(bff.operator)
    return int(bff.oracle.lido.functions.balanceOf(operator).call(block_identifier=block))


def assert_no_drift(bff: Bff) -> None:
    run = dump(bff.reconcile())
    off = [line for line in run["lines"] if line["drift_wei"] != "0" or not line["ok"]]
    assert (run["verdict"], off) == ("ok", [])


def test_stakes__ten_users_around_the_threshold__one_submit_a_batch_and_exact_balances(bff: Bff) -> None:
    users = [f"ten-{number}" for number in range(10)]
    done = stake(bff, users, STAKE)
    batches = {item["batch_id"] for item in done}
    assert len(batches) < len(users)  # How many share one hangs on how fast they come in, one batch for all included.
    total = 0
    for batch_id in batches:
        batch = bff.clients.pool.get(f"/v1/batches/{batch_id}")
        (sent,) = batch["transactions"]
        receipt = raw(bff.clients.protocols).receipt(sent["tx_hash"])
        assert receipt is not None
        (submitted,) = receipt["submitted"]
        assert submitted["amount_wei"] == batch["amount_wei"]
        total += int(batch["amount_wei"])
    assert total == 10 * STAKE
    assert [staked(bff, user) for user in users] == [STAKE] * 10
    assert_no_drift(bff)


def test_rebase__ten_distributions_at_once__accrued_once_with_the_chains_amount(bff: Bff, stack: Stack) -> None:
    stake(bff, ["once-1", "once-2"], 2 * ETHER)
    before = raw(bff.clients.rewards).pool(bff.pool_id)
    report = bff.oracle.rebase(50 * ETHER)
    broker = Celery(broker=stack.status()["broker_url"])
    for _ in range(10):
        broker.send_task("tasks.walk.run_pool", args=[bff.pool_id], queue="pool")
    bff.walked_to(report.block_number)
    events = bff.clients.rewards.get("/v1/events", pool_id=bff.pool_id, limit=200)["items"]
    accruals = [item for item in events if item["message_id"].startswith(f"rebase:{report.block_number}:")]
    assert len(accruals) == 1
    gained = steth_at(bff, report.block_number) - steth_at(bff, report.block_number - 1)
    after = raw(bff.clients.rewards).pool(bff.pool_id)
    assert int(after["accrued_wei"]) - int(before["accrued_wei"]) == gained > 0
    assert_no_drift(bff)


def test_unstake__above_a_thousand_ether__split_and_paid(bff: Bff) -> None:
    user, amount = "whale", 2_300 * ETHER
    stake(bff, [user], amount)
    made = bff.clients.pool.unstake("unstake:whale", user, amount)
    (waiting,) = bff.finish([made], "waiting")
    assert sorted(int(item["amount_wei"]) // ETHER for item in waiting["withdrawals"]) == [300, 1000, 1000]
    custody = bff.eth_of(bff.custody)
    bff.oracle.finalize()
    (done,) = bff.finish([made])
    paid = sum(int(item["paid_wei"]) for item in done["withdrawals"])
    claim = max(
        item["block_number"]
        for item in raw(bff.clients.relayer).transactions(limit=200)["items"]
        if item["block_number"]
    )
    gas = sum(
        int(item["gas_cost_wei"])
        for item in raw(bff.clients.relayer).transactions(limit=200)["items"]
        if item["block_number"] == claim
    )
    assert bff.eth_of(bff.custody) - custody == paid - gas
    assert int(done["settled_wei"]) == paid
    assert amount - paid <= len(done["withdrawals"])  # at most the last wei of each, which Lido's share math keeps
    assert bff.portfolio(user)["balance"]["available_wei"] == str(paid)
    assert staked(bff, user) == 0
    assert_no_drift(bff)


def test_rebase__negative__borne_pro_rata_and_by_the_queued_too(bff: Bff) -> None:
    stakes = {"loss-1": 5 * ETHER, "loss-2": 15 * ETHER}
    for user, amount in stakes.items():
        stake(bff, [user], amount)
    for user in stakes:
        bff.finish([bff.clients.pool.claim_reward(f"reward-claim:{user}", user)])
    before = {user: staked(bff, user) for user in stakes}
    weight = int(raw(bff.clients.rewards).pool(bff.pool_id)["weight_wei"])
    pending = {user: int(bff.portfolio(user)["position"]["pending_wei"]) for user in stakes}
    assert set(pending.values()) == {0}
    report = bff.oracle.rebase(-20 * ETHER)
    bff.walked_to(report.block_number)
    lost = steth_at(bff, report.block_number - 1) - steth_at(bff, report.block_number)
    assert lost > 0
    for user, amount in before.items():
        share = lost * amount / weight
        assert abs((amount - staked(bff, user)) - share) <= 1 + share * 1e-12
    assert_no_drift(bff)


@pytest.mark.parametrize("amount", ["0", "-1", "1.5", "NaN", str(2**256), "1e18", "", None, 10**18, True, "00"])
def test_stake__bad_amount__refused_by_name_and_nothing_moves(bff: Bff, stack: Stack, amount: object) -> None:
    status = stack.status()
    before = raw(bff.clients.ledger).totals(bff.pool_id)
    for number, kind in enumerate(("stakes", "unstakes")):
        answer = requests.post(
            f"{status['services']['pool']}/v1/{kind}",
            json={"message_id": f"bad-amount-{number}", "user_id": "bad", "amount_wei": amount},
            headers={"X-Internal-Key": status["internal_api_key"]},
            timeout=10,
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert set(answer.json()["errors"]) == {"amount_wei"}
    after = raw(bff.clients.ledger).totals(bff.pool_id)
    assert after["last_movement_id"] == before["last_movement_id"]


def test_unstake__unknown_user__rejected_and_nothing_moves(bff: Bff, stack: Stack) -> None:
    status = stack.status()
    before = raw(bff.clients.ledger).totals(bff.pool_id)["last_movement_id"]
    body = {"message_id": "unstake:nobody", "user_id": "nobody", "amount_wei": "1000"}
    for _ in range(2):  # a rejected request answers its 409 again
        answer = requests.post(
            f"{status['services']['pool']}/v1/unstakes",
            json=body,
            headers={"X-Internal-Key": status["internal_api_key"]},
            timeout=10,
        )
        assert (answer.status_code, answer.json()["code"]) == (409, "insufficient_balance")
    request = bff.clients.pool.request(answer.json()["pool_request_id"])
    assert (request["status"], request["settled_wei"]) == ("rejected", None)
    assert raw(bff.clients.ledger).totals(bff.pool_id)["last_movement_id"] == before


def test_services__wrong_or_missing_key__401(stack: Stack) -> None:
    paths = {
        "ledger": "/v1/totals",
        "protocols": "/v1/lido/state",
        "rewards": "/v1/events",
        "pool": "/v1/requests",
        "relayer": "/v1/signers",
    }
    for name, url in stack.status()["services"].items():
        for headers in ({}, {"X-Internal-Key": "wrong"}):
            answer = requests.get(url + paths[name], headers=headers, timeout=10)
            assert (name, answer.status_code, answer.json()["code"]) == (name, 401, "unauthorized")


def test_stake__ledger_down__waits_and_completes_when_it_is_back(bff: Bff, stack: Stack) -> None:
    bff.deposit("patient", 2 * ETHER, "deposit:patient")
    stack.stop("ledger")
    try:
        made = bff.clients.pool.stake("stake:patient", "patient", 2 * ETHER)
        assert made["status"] == "reserving"
    finally:
        stack.start("ledger")
    bff.finish([made])
    assert staked(bff, "patient") == 2 * ETHER
    assert_no_drift(bff)


def test_flower__stack_runs__shows_the_workers_and_their_tasks(bff: Bff, stack: Stack) -> None:
    names = bff.wait(
        "Flower to list the flows' tasks",
        lambda: {item["name"] for item in requests.get(f"{stack.flower_url()}/api/tasks", timeout=10).json().values()},
        lambda found: {"tasks.sweep.wake", "tasks.walk.run", "relayer.tasks.pump"} <= found,
    )
    assert names
