"""The pool's operations."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert

from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.flow.lease import acquire
from apps.flow.outcome import Park
from apps.flow.row import reason
from apps.flow.runner import write
from apps.pool.flows.batches import BatchFlow
from apps.pool.models import Batch, Walk
from tests.support.endpoints.call import Call, Prepare, Table, found, reads, span, writes
from tests.support.endpoints.protocols import submitted
from tests.support.endpoints.world import ANN, World

HALT: dict[str, Any] = {
    "code": "foreign_out",
    "detail": "2000000000000000000 shares left the operator.",
    "block_number": 7,
    "log_index": 2,
    "tx_hash": "0x" + "ab" * 32,
    "kind": "foreign_out",
    "shares": "2000000000000000000",
    "amount_wei": "2003000000000000000",
    "effect": None,
}


def stake(world: World, name: str) -> Call:
    """Somebody with ETH to stake."""
    world.flows.deposit(name, ETHER)
    return Call(body={"message_id": f"{name}:stake", "user_id": name, "amount_wei": str(ETHER)})


def unstake(_world: World, name: str) -> Call:
    return Call(body={"message_id": name, "user_id": ANN, "amount_wei": str(ETHER)})


def claim(_world: World, name: str) -> Call:
    return Call(body={"message_id": name, "user_id": ANN})


def queued(world: World, name: str) -> Call:
    return Call(path={"request_id": _staked(world, name)})


def parked_request(world: World, name: str) -> Call:
    request, _ = _parked(world, name)
    return Call(path={"request_id": request})


def parked_batch(world: World, name: str) -> Call:
    _, batch = _parked(world, name)
    said = {"message_id": f"{name}:release", "by": "olga", "why": "Nothing was sent.", "evidence": "ticket 7"}
    return Call(path={"batch_id": batch}, body=said)


def halted(world: World, name: str) -> Call:
    """A walk of a pool of its own, halted."""
    with transaction(world.flows.context.sessions) as session:
        session.execute(insert(Walk).values(id=name, status="halted", halt=HALT, next_run_at=func.now()))
    place = {"code": HALT["code"], "block_number": HALT["block_number"], "log_index": HALT["log_index"]}
    said = {"by": "olga", "why": "Moved by hand.", "evidence": "ticket 7"}
    resolution = {"message_id": f"{name}:resolve", "pool_id": name, "action": "book_loss", "account": "@fees"}
    return Call(body={**resolution, **place, **said})


def decision(by: str) -> Prepare:
    """A resolution that was proposed, and who decides about it."""

    def prepare(world: World, name: str) -> Call:
        made = world.done("pool", "resolve_walk", halted(world, name))
        return Call(path={"resolution_id": made["id"]}, body={"by": by})

    return prepare


def preference(_world: World, name: str) -> Call:
    return Call(path={"user_id": name}, body={"auto_claim_rewards": True})


def hold(_world: World, name: str) -> Call:
    said = {"actions": ["unstake"], "by": "olga", "why": "Asked by compliance."}
    return Call(path={"user_id": name}, body={"message_id": f"{name}:hold", **said})


def held(world: World, name: str) -> Call:
    made = world.done("pool", "place_hold", hold(world, name))
    return Call(path={"hold_id": made["id"]}, body={"by": "paul", "why": "Compliance has answered."})


def of_a_list(operation: str, parameter: str, **query: str) -> Callable[[World, str], Call]:
    """The newest of a list."""

    def prepare(world: World, _name: str) -> Call:
        found = world.done("pool", operation, Call(query=query))["items"][0]
        return Call(path={parameter: found["id"]})

    return prepare


def _staked(world: World, name: str) -> str:
    return str(world.done("pool", "create_stake", stake(world, name))["id"])


def _parked(world: World, name: str) -> tuple[str, str]:
    """A stake whose batch is parked before anything was sent: its id, and the batch's."""
    flows = world.flows
    flows.batching()  # what others have queued
    request = _staked(world, name)
    flows.batching()
    with transaction(flows.context.sessions) as session:
        session.execute(update(Batch).where(Batch.status == "batched").values(next_run_at=text("now()")))
    for batch in acquire(flows.context.sessions, Batch, 100.0, limit=100):
        write(BatchFlow(flows.context), batch, Park(reason("conflict", "The key was used outside the relayer.")))
    return request, str(flows.request({"id": request})["batch_id"])


POOL: Table = {
    "create_stake": writes(stake),
    "create_unstake": writes(unstake),
    "create_reward_claim": writes(claim),
    "list_requests": reads(user_id=ANN, limit="2"),
    "get_request": found(of_a_list("list_requests", "request_id", user_id=ANN, kind="unstake", status="completed")),
    "cancel_request": writes(queued),
    "retry_request": writes(parked_request, "not_retryable"),
    "list_batches": reads(limit="2", status="completed"),
    "get_batch": found(of_a_list("list_batches", "batch_id", kind="unstake", status="completed")),
    "get_portfolio": reads({"user_id": ANN}),
    "list_users": reads(limit="2"),
    "get_preferences": reads({"user_id": ANN}),
    "put_preferences": writes(preference),
    "place_hold": writes(hold),
    "list_holds": reads(limit="2"),
    "release_hold": writes(held),
    "get_statement": span(user_id=ANN),
    "get_lineage": found(of_a_list("list_requests", "request_id", user_id=ANN, kind="unstake", status="completed")),
    "list_requests_of_transaction": found(submitted),
    "get_quote": reads(kind="stake", amount_wei="32000000000000000000"),
    "get_quote_accuracy": reads(),
    "list_events": reads(limit="2"),
    "get_walk": reads(),
    "resolve_walk": writes(halted),
    "list_resolutions": reads(limit="2"),
    "approve_resolution": writes(decision("paul"), "already_decided"),
    "reject_resolution": writes(decision("olga"), "already_decided"),
    "release_batch": writes(parked_batch),
    "resume_batches": reads(),
    "list_protocol_metrics": reads(limit="2"),
}
