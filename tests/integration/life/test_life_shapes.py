"""Every answer of the five services has the shape its callers rely on, after a life that fills every field."""

from typing import Any

import pytest
import requests

from apps.clients.rewards import stake_delta
from apps.clients.shapes.protocols import WithdrawalItem
from apps.common.wei import ETHER
from apps.local.bff import Bff
from apps.local.stack import Stack
from tests.support import shapes
from tests.support.raw import raw

USER = "shape"


@pytest.fixture(scope="module")
def lived(bff: Bff) -> dict[str, Any]:
    """A stake, a rebase, a reward claim and an unstake up to its payment; returns the requests by kind."""
    bff.deposit(USER, 10 * ETHER, f"deposit:{USER}")
    pool = bff.clients.pool
    (stake,) = bff.finish([pool.stake(f"stake:{USER}", USER, 5 * ETHER)])
    bff.rebase(20 * ETHER)
    (claim,) = bff.finish([pool.claim_reward(f"reward-claim:{USER}", USER)])
    made = pool.unstake(f"unstake:{USER}", USER, 2 * ETHER)
    bff.finish([made], "waiting")
    bff.oracle.finalize()
    (unstake,) = bff.finish([made])
    bff.reconcile()
    return {"stake": stake, "reward_claim": claim, "unstake": unstake}


def check(spec: Any, value: Any) -> None:
    assert shapes.faults(spec, value) == []


def test_ledger__every_answer__has_its_shape(bff: Bff, lived: dict[str, Any]) -> None:
    ledger = bff.clients.ledger
    page = raw(ledger).movements(pool_id=bff.pool_id, user_id=USER)
    check({"items": [shapes.MOVEMENT], "next": "text?"}, page)
    assert page["items"]
    check(shapes.MOVEMENT, raw(ledger).movement(f"deposit:{USER}"))
    check(shapes.BALANCE, raw(ledger).balance(bff.pool_id, USER))
    check(shapes.BALANCE, raw(ledger).balance(bff.pool_id, "nobody-at-all"))
    at = ledger.get(f"/v1/balances/{USER}", at=lived["stake"]["timeline"][0]["at"])
    check(shapes.BALANCE, at)
    assert at["staked_wei"] == "0"
    check(shapes.TOTALS, raw(ledger).totals(bff.pool_id))
    check(shapes.AUDIT, ledger.post("/v1/audits", {}))
    check({"items": [shapes.AUDIT], "next": "text?"}, ledger.get("/v1/audits"))
    bff.oracle.fund(bff.custody, 1)
    check(
        {"posted": "I", "replayed": "I", "first_id": "I?", "last_id": "I?"},
        ledger.post("/v1/movements/batch", {"movements": [_deposit("shape-batch")]}),
    )


def test_rewards__every_answer__has_its_shape(bff: Bff, lived: dict[str, Any]) -> None:
    rewards, other = bff.clients.rewards, "shape_pool"
    check({"applied": "I", "replayed": "I"}, raw(rewards).stake_deltas(other, [stake_delta("shape:1", "ann", ETHER)]))
    check(shapes.ACCRUAL, raw(rewards).accrue("shape:2", other, -5, "share_rate"))
    check(shapes.CLAIM, raw(rewards).claim("shape:3", other, "ann"))
    check(shapes.ACCRUAL, raw(rewards).accrue("shape:4", "shape_pool_2", 7, "share_rate"))
    rewards.stake_deltas("shape_pool_2", [stake_delta("shape:5", "ann", ETHER)])
    released = {"message_id": "shape:6", "pool_id": "shape_pool_2", "amount_wei": "7"}
    check(shapes.ACCRUAL, rewards.post("/v1/parked/release", released))
    check(shapes.REWARD_POOL, raw(rewards).pool(bff.pool_id))
    check(shapes.POSITION, raw(rewards).position(bff.pool_id, USER))
    check(shapes.POSITION, raw(rewards).position(bff.pool_id, "nobody-at-all"))
    check(shapes.AUDIT, rewards.post("/v1/audits", {}))
    events = rewards.get("/v1/events", pool_id=bff.pool_id)
    check({"items": [{"id": "I", "message_id": "text", "kind": "text"}], "next": "I"}, events)


def test_protocols__every_answer__has_its_shape(bff: Bff, lived: dict[str, Any]) -> None:
    protocols = bff.clients.protocols
    state = raw(protocols).state()
    check(shapes.LIDO_STATE, state)
    assert raw(protocols).state(state["block_number"])["block_hash"] == state["block_hash"]
    check(shapes.UNSIGNED_TRANSACTION, raw(protocols).build_submit(ETHER))
    check(shapes.UNSIGNED_TRANSACTION, raw(protocols).build_approve(ETHER))
    built = raw(protocols).build_request_withdrawals([WithdrawalItem(reference="one", amount_wei=ETHER)])
    check(shapes.UNSIGNED_TRANSACTION, built)
    assert built["elements"] == [{"reference": "one", "amount_wei": str(ETHER)}]
    history = raw(protocols).history("0:-1")["items"]
    assert {item["kind"] for item in history} >= {"submit", "request", "claim", "rebase"}
    for item in history:
        check(
            shapes.HISTORY_ITEM | {"rebase": shapes.REBASE} if item["kind"] == "rebase" else shapes.HISTORY_ITEM, item
        )
    rebases = protocols.get("/v1/lido/rebases", after_block=0)["items"]
    assert [item["kind"] for item in rebases] == ["rebase"] * len(rebases) != []
    check([shapes.HISTORY_ITEM | shapes.REBASE | {"rebase": shapes.REBASE}], rebases)
    for sent in lived["stake"]["transactions"] + lived["unstake"]["transactions"]:
        check(shapes.RECEIPT, raw(protocols).receipt(sent["tx_hash"]))
    ids = [item["withdrawal_id"] for item in lived["unstake"]["withdrawals"]]
    check([shapes.WITHDRAWAL_STATUS], raw(protocols).withdrawal_status(ids))
    check({"items": [shapes.RECONCILIATION], "next": "text?"}, raw(protocols).reconciliations(limit=3))
    run = protocols.post("/v1/reconciliations", {"message_id": "shape:reconciliation"})
    check(shapes.RECONCILIATION, run)
    assert protocols.get("/v1/lido/apr")


def test_pool__every_answer__has_its_shape(bff: Bff, lived: dict[str, Any]) -> None:
    pool = bff.clients.pool
    for request in lived.values():
        check(shapes.REQUEST, request)
        assert request["settled_wei"] is not None
    assert [len(lived["unstake"][name]) > 0 for name in ("withdrawals", "transactions")] == [True, True]
    check({"items": [shapes.REQUEST], "next": "text?"}, pool.requests(user_id=USER, limit=2))
    check({"items": [shapes.BATCH], "next": "text?"}, pool.batches(limit=3))
    check(shapes.BATCH, pool.get(f"/v1/batches/{lived['stake']['batch_id']}"))
    check(shapes.PORTFOLIO, bff.portfolio(USER))
    feed = pool.get("/v1/events", limit=200)
    check([shapes.EVENT], feed["items"])
    assert feed["next"] == feed["items"][-1]["sequence"]
    for kind in ("stake", "unstake"):
        assert pool.get("/v1/quotes", kind=kind, amount_wei=str(ETHER))["kind"] == kind


def test_relayer__every_answer__has_its_shape(bff: Bff, lived: dict[str, Any]) -> None:
    relayer = bff.clients.relayer
    page = raw(relayer).transactions(limit=200)
    check({"items": [shapes.RELAYER_TRANSACTION], "next": "text?"}, page)
    assert {item["status"] for item in page["items"]} <= {"confirmed", "broadcast", "mined", "signed", "queued"}
    for sent in [sent for request in lived.values() for sent in request["transactions"]]:
        found = raw(relayer).transaction(sent["message_id"])
        check(shapes.RELAYER_TRANSACTION, found)
        assert found is not None
        assert (sent["status"], sent["tx_hash"]) == ("confirmed", found["tx_hash"])
    check([shapes.SIGNER], raw(relayer).signers())


@pytest.mark.parametrize(
    ("service", "path", "status", "code"),
    [
        ("pool", "/v1/requests/nothing", 404, "not_found"),
        ("pool", "/v1/requests?limit=0", 422, "invalid_input"),
        ("pool", "/v1/requests?limit=201", 422, "invalid_input"),
        ("pool", "/v1/events?after=x", 422, "invalid_input"),
        ("ledger", "/v1/balances/@custody", 422, "invalid_input"),
        ("ledger", "/v1/movements/never-posted", 404, "not_found"),
        ("protocols", "/v1/lido/receipts/0x" + "00" * 32, 404, "not_found"),
        ("protocols", "/v1/lido/state?block=999999999", 404, "not_found"),
        ("relayer", "/v1/transactions/never-sent", 404, "transaction_not_found"),
    ],
)
def test_services__bad_or_unknown__a_problem_with_a_code(
    stack: Stack, service: str, path: str, status: int, code: str
) -> None:
    found = stack.status()
    key = found["relayer_api_key"] if service == "relayer" else found["internal_api_key"]
    answer = requests.get(found["services"][service] + path, headers={"X-Internal-Key": key}, timeout=20)
    body = answer.json()
    assert (answer.status_code, body["code"], answer.headers["Content-Type"]) == (
        status,
        code,
        "application/problem+json",
    )
    assert set(body) >= {"type", "title", "status", "detail", "code", "request_id"}


def _deposit(user_id: str) -> dict[str, Any]:
    return {"message_id": f"deposit:{user_id}", "kind": "deposit", "user_id": user_id, "amount_wei": "1"}
