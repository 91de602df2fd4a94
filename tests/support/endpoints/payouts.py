"""The operations of payouts and deposits, at the pool and at protocols."""

from web3 import Web3

from apps.common.wei import ETHER
from tests.support.endpoints.call import Call, Operation, Prepare, Table, found, reads, writes
from tests.support.endpoints.world import ANN, World
from tests.support.payouts import allow, pay_out, payee

ABOVE_FOUR_EYES_WEI = 40 * ETHER
# What is read on before it is known whether a call is the first.
READ_ON = frozenset({"protocols.arrivals", "protocols.arrival_cursor", "protocols.posted_deposits"})


def payout(world: World, name: str) -> Call:
    """Somebody with ETH to take home."""
    _rich(world, name)
    return Call(body={"message_id": name, "user_id": name, "amount_wei": str(ETHER), "to": payee(name)})


def address(_world: World, name: str) -> Call:
    return Call(path={"user_id": name}, body={"message_id": name, "address": payee(name), "label": "cold wallet"})


def allowed(world: World, name: str) -> Call:
    return Call(path={"user_id": name, "address_id": allow(world.flows, name, payee(name))})


def listed(world: World, name: str) -> Call:
    allow(world.flows, ANN, payee(name))
    return Call(path={"user_id": ANN}, query={"limit": "2"})


def waiting(by: str) -> Prepare:
    """A payout that waits for a second person, and who decides."""

    def prepare(world: World, name: str) -> Call:
        _rich(world, name)
        made = pay_out(world.flows, name, ABOVE_FOUR_EYES_WEI, payee(name))
        return Call(path={"request_id": made["id"]}, body={"by": by})

    return prepare


def parked(world: World, name: str) -> Call:
    """A payout whose transfer the relayer says is a conflict."""
    flows = world.flows
    _rich(world, name)
    made = pay_out(flows, name, ETHER, payee(name))
    for _ in range(2):
        flows.requests()
    why = '{"code": "nonce_taken", "detail": "Another transaction used it."}'
    end = "UPDATE messages SET status = 'conflict', reason = CAST(:why AS jsonb) WHERE message_id = :name"
    world.sql("relayer", end, why=why, name=f"payout:{made['id']}:send")
    flows.requests()
    said = {"message_id": f"{name}:said", "by": "olga", "why": "Seen on chain.", "evidence": "ticket 7"}
    return Call(path={"request_id": made["id"]}, body=said)


def paid(world: World, name: str) -> Call:
    """The same, and a transaction of custody's that has paid it."""
    call = parked(world, name)
    desk = world.flows.desk
    nonce, held = desk.web3.eth.get_transaction_count(desk.operator), desk.balance(desk.operator)  # type: ignore[arg-type]
    tx_hash = str(desk.rpc("eth_sendTransaction", {"from": desk.operator, "to": payee(name), "value": hex(ETHER)}))
    desk.rpc("anvil_setNonce", desk.operator, hex(nonce))  # for the relayer would rightly stop
    desk.rpc("anvil_setBalance", desk.operator, hex(held))
    return Call(path=call.path, body={**(call.body or {}), "tx_hash": tx_hash})


def arrived(world: World, name: str) -> Call:
    """ETH that came to custody, and whose it is."""
    return Call(body={"message_id": name, "user_id": name, "tx_hash": _arrive(world)})


def unposted(world: World, _name: str) -> Call:
    _arrive(world)
    return Call(query={"limit": "2"})


def transfer(world: World, _name: str) -> Call:
    return Call(path={"tx_hash": _arrive(world)})


def _rich(world: World, name: str) -> None:
    world.flows.deposit(name, ABOVE_FOUR_EYES_WEI)
    allow(world.flows, name, payee(name))


def _arrive(world: World) -> str:
    desk = world.flows.desk
    sent = {"from": desk.user, "to": desk.operator, "value": hex(ETHER)}
    return str(desk.rpc("eth_sendTransaction", sent))


PAYOUTS: Table = {
    "create_payout": writes(payout),
    "approve_payout": writes(waiting("paul"), "not_approving"),
    "reject_payout": writes(waiting("paul"), "not_approving"),
    "release_payout": writes(parked),
    "confirm_payout": Operation(paid, each=READ_ON),
    "add_payout_address": writes(address),
    "list_payout_addresses": found(listed),
    "remove_payout_address": writes(allowed),
    "create_deposit": Operation(arrived, each=READ_ON),
    "list_unidentified": found(unposted),
}
ARRIVALS: Table = {
    "get_account": reads({"address": Web3.to_checksum_address("0x" + "0a" * 20)}),
    "get_transfer": found(transfer),
    "list_unidentified": found(unposted),
}
