"""The relayer's operations."""

from apps.common.wei import ETHER
from tests.support.endpoints.call import Call, Operation, Prepare, Table, found, reads, writes
from tests.support.endpoints.world import World


def message(world: World, name: str) -> Call:
    """An approval of the withdrawal queue, as protocols builds it."""
    if "approval" not in world.seen:
        world.seen["approval"] = world.done("protocols", "build_approve", Call(body={"amount_wei": str(ETHER)}))
    built = {key: world.seen["approval"][key] for key in ("from", "to", "data", "value_wei", "gas_limit")}
    return Call(body={"message_id": name, **built, "purpose": "approve"})


def accepted(world: World, name: str) -> Call:
    world.done("relayer", "create_transaction", message(world, name))
    return Call(path={"message_id": name})


def signed(world: World, name: str) -> Call:
    """A message whose bytes a node holds; whether they are mined, the relayer has not seen yet."""
    world.sql("relayer", "UPDATE signers SET state = 'active'")
    call = accepted(world, name)
    world.flows.pump()
    return call


def own(state: str) -> Prepare:
    """The operator's key, in a state."""

    def prepare(world: World, _name: str) -> Call:
        world.flows.pump()
        world.flows.pump()
        world.sql("relayer", "UPDATE signers SET state = :state", state=state)
        return Call(path={"address": world.flows.desk.operator})

    return prepare


def newest(world: World, _name: str) -> Call:
    sent = world.done("pool", "list_batches", Call(query={"kind": "stake", "status": "completed"}))["items"][0]
    return Call(path={"message_id": sent["transactions"][0]["message_id"]})


RELAYER: Table = {
    "create_transaction": writes(message),
    "list_transactions": reads(limit="1"),
    "get_transaction": found(newest),
    "list_transaction_events": found(newest),
    "list_transaction_sends": found(newest),
    "explain_transaction": found(newest),
    "cancel_transaction": Operation(accepted, otherwise=(signed,)),
    "speed_up_transaction": writes(signed),
    "get_limits": reads(),
    "list_signers": reads(),
    "pause_signer": writes(own("active")),
    "drain_signer": writes(own("active")),
    "resume_signer": writes(own("paused")),
    "release_signer": writes(own("quarantined"), "not_quarantined"),
}
