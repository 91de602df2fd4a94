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
from apps.pool.feed import number_events
from apps.pool.flows.batches import BatchFlow
from apps.pool.models import Batch, Walk
from tests.support.endpoints.call import Call, Prepare, Table, found, reads, span, writes
from tests.support.endpoints.protocols import submitted
from tests.support.endpoints.world import ANN, World

MESSAGE = "message_id"
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


def webhook(world: World, name: str) -> Call:
    """Room for an endpoint, which nobody sends to: no worker runs."""
    world.sql("pool", "UPDATE webhooks SET status = 'deleted', next_run_at = NULL"
              " WHERE id < (SELECT id FROM webhooks ORDER BY id DESC OFFSET 9 LIMIT 1)")  # fmt: skip
    number_events(world.flows.context.sessions)
    types = ["request.completed", "request.failed"]
    return Call(body={"message_id": f"{name}:hook", "url": "https://bff.example/staking-events", "types": types})


def webhook_with(then: Callable[[World, str], None] | None = None, **body: Any) -> Prepare:
    """A webhook, what came of it, and the body of what is asked about it; its message_id where that is `name`."""

    def prepare(world: World, name: str) -> Call:
        made = world.done("pool", "create_webhook", webhook(world, name))["id"]
        if then is not None:
            then(world, made)
        given = {key: f"{name}:asked" if value == MESSAGE else value for key, value in body.items()}
        return Call(path={"webhook_id": made}, body=given or None)

    return prepare


def listed_webhooks(world: World, name: str) -> Call:
    """A list with one in it; others that a table made before are gone."""
    world.sql("pool", "UPDATE webhooks SET status = 'deleted', next_run_at = NULL")
    webhook_with()(world, name)
    return Call()


def delivery(status: str) -> Prepare:
    """A test event of a webhook, and how far it has come."""

    def prepare(world: World, name: str) -> Call:
        call = webhook_with(message_id=MESSAGE)(world, name)
        made = world.done("pool", "test_webhook", call)["id"]
        _fail(world, made, status)
        return Call(path={**call.path, "delivery_id": made})

    return prepare


def deliveries(world: World, name: str) -> Call:
    return Call(path={"webhook_id": delivery("dead_letter")(world, name).path["webhook_id"]})


def _fail(world: World, delivery_id: str, status: str) -> None:
    """One attempt that came to nothing."""
    world.sql("pool", "UPDATE webhook_deliveries SET status = :status, attempt_count = 1, due_at = CASE WHEN :status ="
              " 'pending' THEN now() + interval '10 s' END WHERE id = :id", id=delivery_id, status=status)  # fmt: skip
    fault = '{"code": "refused", "detail": "Answered 500; only 2xx takes an event."}'
    world.sql("pool", "INSERT INTO webhook_attempts (delivery_id, at, duration_ms, answer_status, error)"
              " VALUES (:id, now(), 41, 500, CAST(:fault AS jsonb))", id=delivery_id, fault=fault)  # fmt: skip


def _disable(world: World, webhook_id: str) -> None:
    world.done("pool", "disable_webhook", Call(path={"webhook_id": webhook_id}))


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
    "create_webhook": writes(webhook),
    "list_webhooks": found(listed_webhooks),
    "get_webhook": found(webhook_with()),
    "change_webhook": writes(webhook_with(types=["*"])),
    "disable_webhook": writes(webhook_with()),
    "enable_webhook": writes(webhook_with(_disable)),
    "delete_webhook": writes(webhook_with(), "not_found"),
    "rotate_webhook_secret": writes(webhook_with(message_id=MESSAGE, overlap_sec=3600)),
    "test_webhook": writes(webhook_with(message_id=MESSAGE)),
    "replay_webhook": writes(webhook_with(message_id=MESSAGE, after_sequence=0)),
    "list_deliveries": found(deliveries),
    "get_delivery": found(delivery("pending")),
    "retry_dead_letters": writes(deliveries),
    "retry_dead_letter": writes(delivery("dead_letter"), "not_a_dead_letter"),
    "get_walk": reads(),
    "resolve_walk": writes(halted),
    "list_resolutions": reads(limit="2"),
    "approve_resolution": writes(decision("paul"), "already_decided"),
    "reject_resolution": writes(decision("olga"), "already_decided"),
    "release_batch": writes(parked_batch),
    "resume_batches": reads(),
    "list_protocol_metrics": reads(limit="2"),
}
