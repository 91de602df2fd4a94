"""Protocols' operations."""

from dataclasses import replace

from eth_abi.abi import encode
from web3 import Web3

from apps.common.wei import ETHER
from tests.support.endpoints.call import Call, Table, body, found, reads, writes
from tests.support.endpoints.ledger import AUDITS
from tests.support.endpoints.world import World

SHARES_SLOT = 7  # of the desk's Lido
FALL = 1_000


def lose_shares(world: World, _name: str) -> Call:
    """Some of the operator's shares go without a log; Lido's own books say nothing of it."""
    desk = world.flows.desk
    world.done("protocols", "list_lido_history", Call())
    place = Web3.keccak(encode(["address", "uint256"], [desk.operator, SHARES_SLOT]))
    held = desk.shares(desk.operator)
    desk.oracle.mine()
    desk.rpc("anvil_setStorageAt", desk.deployment.steth, "0x" + bytes(place).hex(), f"0x{held - FALL:064x}")
    block = desk.head()
    desk.oracle.mine()
    said = {"block_number": block, "shares": str(-FALL), "reason": "Burnt by the protocol.", "requested_by": "olga"}
    return Call(body={"message_id": _name, **said})


def read_history(world: World, name: str) -> Call:
    world.done("protocols", "list_lido_history", Call())
    return Call(body={"message_id": name, "from_block": world.flows.desk.head() - 3, "reason": "A node was replaced.",
                      "requested_by": "olga"})  # fmt: skip


def finalized(world: World, _name: str) -> Call:
    """A withdrawal of the operator that Lido pays and nobody has claimed."""
    desk = world.flows.desk
    if "finalized" not in world.seen:
        allowed(world, _name)
        receipt = world.flows.by_hand(desk.queue.requestWithdrawals([ETHER], desk.operator))
        world.seen["finalized"] = [log["requestId"] for log in desk.events("WithdrawalRequested", receipt)]
        desk.oracle.finalize()
    return Call(body={"withdrawal_ids": world.seen["finalized"]})


def allowed(world: World, _name: str) -> Call:
    desk = world.flows.desk
    world.flows.by_hand(desk.lido.approve(desk.deployment.withdrawal_queue, 2 * ETHER))
    return Call(body={"items": [{"reference": "unstake:1", "amount_wei": str(2 * ETHER)}]})


def latest(world: World, _name: str) -> Call:
    return Call(path={"number": str(world.flows.desk.head() - 1)})


def submitted(world: World, _name: str) -> Call:
    batches = world.done("pool", "list_batches", Call(query={"kind": "stake", "status": "completed"}))["items"]
    return Call(path={"tx_hash": batches[0]["transactions"][0]["tx_hash"]})


PROTOCOLS: Table = {
    "build_submit": body(amount_wei="32000000000000000000"),
    "build_approve": body(amount_wei="3000000000000000000"),
    "build_withdrawal_request": writes(allowed),
    "build_claim": writes(finalized),
    "get_lido_state": reads(),
    "get_lido_block": found(latest),
    "list_lido_history": reads(limit="3"),
    "rescan_history": writes(read_history),
    "list_rescans": reads(limit="2"),
    "list_rebases": reads(limit="2"),
    "get_lido_receipt": found(submitted),
    "list_withdrawal_statuses": body(ids=[1]),
    "get_apr": reads(),
    # It reads on and asks the ledger for an audit before it is known whether it is the first.
    "create_reconciliation": replace(body(message_id="{name}"), each=AUDITS | {"protocols.scanned_blocks"}),
    "list_reconciliations": reads(limit="1"),
    # The last: what it takes away is missed by all that follows.
    "accept_share_difference": writes(lose_shares),
}
