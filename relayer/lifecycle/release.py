"""Lifting a quarantine by proof: every transaction of the key that is none of the relayer's is read from the chain and
recorded, and only then may the key be used again.

Where two endpoints answer, only what both see alike is recorded. No transaction is open while nodes are asked: what was read
before is checked again under the signer's lock, which `sign_queued` takes, too, to give out nonces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.ethereum.addresses import checksummed
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from relayer.api.errors import NonceUserUnknown, NotQuarantined, ReleaseUnfinished, SignerNotAtRest, SignerNotFound
from relayer.chain.evidence import blocks_using, elsewhere, transaction_in
from relayer.chain.snapshot import ChainSnapshot, NodeObject, answered, read_chain, read_receipt
from relayer.context import RelayerContext
from relayer.store.models import ExternalMatch, ExternalTransaction, Message, NonceRow, Signer
from relayer.store.states import FINAL, OPEN, NonceState, SignerState

log = structlog.get_logger(__name__)

NONCES_PER_CALL = 100


@dataclass(frozen=True)
class _Use:
    """What used a nonce, as one endpoint tells it. Fields as in `ExternalTransaction`."""

    nonce: int
    block_number: int
    block_hash: str
    tx_hash: str | None = None
    to_address: str | None = None
    value_wei: int | None = None
    data: bytes | None = None
    success: bool | None = None


@dataclass(frozen=True)
class _Case:
    """A quarantined key as the database knows it.

    `taken`: nonces below `next_nonce` that external transactions used and that are not recorded yet, with the messages that
    owned them. `recorded`: nonces whose external transactions are recorded, by this release's earlier calls or before.
    """

    address: str
    next_nonce: int
    taken: dict[int, str]
    recorded: frozenset[int]


def release(context: RelayerContext, address: str) -> str:
    """Record what used the key besides the relayer, and set it to ``paused``; returns its checksummed address.

    Raises `SignerNotFound`, `NotQuarantined`, `SignerNotAtRest`, `NonceUserUnknown`, `ReleaseUnfinished` (what was found
    so far is recorded, the key stays quarantined) or `ChainUnavailable`.
    """
    case = _read_case(context, address)
    snapshot = read_chain(context, [])
    chain_nonce = _nonce_at_rest(snapshot, case)
    unknown = [*case.taken, *(nonce for nonce in range(case.next_nonce, chain_nonce) if nonce not in case.recorded)]
    uses = _identify(context, snapshot, case, sorted(unknown)[:NONCES_PER_CALL])
    finished = len(uses) == len(unknown)
    with transaction(context.sessions) as session:
        signer = _quarantined(session, context.settings.chain_id, address, lock=True)
        if signer.next_nonce != case.next_nonce:
            raise SignerNotAtRest("The key's next nonce has moved meanwhile.")
        _refuse_open(session, signer)
        _record(session, signer, case, uses)
        if finished:
            signer.next_nonce = max(signer.next_nonce, chain_nonce)
            signer.state = SignerState.PAUSED
            signer.updated_at = func.clock_timestamp()
    if not finished:
        raise ReleaseUnfinished(f"{len(unknown) - len(uses)} nonces are not looked up yet. Call again.")
    log.warning("signer_released", address=case.address, next_nonce=chain_nonce, external_transactions=len(uses))
    return case.address


def _read_case(context: RelayerContext, address: str) -> _Case:
    with transaction(context.sessions) as session:
        signer = _quarantined(session, context.settings.chain_id, address)
        _refuse_open(session, signer)
        own = (ExternalTransaction.chain_id == signer.chain_id, ExternalTransaction.address == signer.address)
        recorded = frozenset(session.scalars(select(ExternalTransaction.nonce).where(*own)))
        used_externally = session.execute(
            select(NonceRow.nonce, NonceRow.message_id).where(
                NonceRow.chain_id == signer.chain_id,
                NonceRow.address == signer.address,
                NonceRow.state == NonceState.EXTERNAL,
            )
        )
        taken = {row.nonce: row.message_id for row in used_externally if row.nonce not in recorded}
        return _Case(signer.address, signer.next_nonce, taken, recorded)


def _quarantined(session: Session, chain_id: int, address: str, *, lock: bool = False) -> Signer:
    query = select(Signer).where(Signer.chain_id == chain_id, func.lower(Signer.address) == address.lower())
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise SignerNotFound
    if row.state != SignerState.QUARANTINED:
        raise NotQuarantined(f"The key is {row.state}; only a quarantined one can be released.")
    return row


def _refuse_open(session: Session, signer: Signer) -> None:
    query = select(Message.message_id).where(
        Message.chain_id == signer.chain_id, Message.from_address == signer.address, Message.status.in_(OPEN)
    )
    under_way = session.scalars(query.order_by(Message.nonce)).all()
    if under_way:
        raise SignerNotAtRest(f"{len(under_way)} messages have not ended; the first is {under_way[0]}.")


def _nonce_at_rest(snapshot: ChainSnapshot, case: _Case) -> int:
    """The key's nonce on the chain. Raises `SignerNotAtRest` unless it is the same at the latest block, with what is pending
    and at the horizon, and not below the nonces that were given here."""
    view = snapshot.signers.get(case.address)
    if view is None:
        raise SignerNotFound("The key of this address is not held here.")
    if not view.latest == view.pending == view.settled:
        raise SignerNotAtRest(
            f"Its nonce is {view.settled} at the horizon, {view.latest} at the latest block and {view.pending} with "
            "what is pending; they must be one."
        )
    if view.settled < case.next_nonce:
        raise SignerNotAtRest(f"Its nonce on the chain is {view.settled}, below the {case.next_nonce} given here.")
    return view.settled


def _identify(context: RelayerContext, snapshot: ChainSnapshot, case: _Case, nonces: Sequence[int]) -> list[_Use]:
    """What used each nonce, as the snapshot's endpoint tells it; raises unless every other endpoint that answers tells the
    same."""
    try:
        low = _unused_at(context, case, nonces)
        places = blocks_using(snapshot.endpoint, case.address, nonces, low, snapshot.horizon)
        uses = _read_uses(snapshot.endpoint, case.address, places)
    except (RpcError, Unanswered, TypeError, ValueError) as error:
        log.warning("nonce_user_not_found", address=case.address, kind=type(error).__name__)
        uses = None
    if uses is None:
        raise NonceUserUnknown

    def ask(endpoint: Endpoint) -> tuple[int, bool, list[_Use] | None]:
        return (
            endpoint.number,
            _rests_there(endpoint, snapshot, case.address),
            _read_uses(endpoint, case.address, places),
        )

    answers, needed = elsewhere(context.settings, context.endpoints, snapshot, ask)
    for number, at_rest, seen in answers:
        if not at_rest:
            raise SignerNotAtRest(f"Endpoint {number} sees another nonce of the key, or another chain.")
        if seen != uses:
            raise NonceUserUnknown(f"Endpoint {number} does not hold the same transactions in the same blocks.")
    if 1 + len(answers) < needed:
        raise SignerNotAtRest(f"{1 + len(answers)} endpoints answer, and {needed} must agree.")
    return uses


def _unused_at(context: RelayerContext, case: _Case, nonces: Sequence[int]) -> int:
    """The latest block known at which none of these nonces was used: the one before that in which a lower nonce was used."""
    if not nonces:
        return 0
    chain_id = context.settings.chain_id
    own = select(func.max(Message.block_number)).where(
        Message.chain_id == chain_id,
        Message.from_address == case.address,
        Message.status.in_(FINAL),
        Message.nonce < nonces[0],
    )
    external = select(func.max(ExternalTransaction.block_number)).where(
        ExternalTransaction.chain_id == chain_id,
        ExternalTransaction.address == case.address,
        ExternalTransaction.nonce < nonces[0],
    )
    with transaction(context.sessions) as session:
        return max(session.scalar(own) or 1, session.scalar(external) or 1) - 1


def _rests_there(endpoint: Endpoint, snapshot: ChainSnapshot, address: str) -> bool:
    """Whether this endpoint, too, sees the key at rest at that nonce, on a chain that has the horizon's block."""
    places: tuple[object, ...] = ("latest", "pending", {"blockHash": snapshot.horizon_hash})
    counts = endpoint.batch([("eth_getTransactionCount", [address, place]) for place in places])
    settled = snapshot.signers[address].settled
    return all(isinstance(count, str) and int(count, 16) == settled for count in counts)


def _read_uses(endpoint: Endpoint, address: str, places: Mapping[int, int]) -> list[_Use] | None:
    """What used these nonces in these blocks, as this endpoint tells it; None where it cannot tell. Raises `Unanswered`.

    A nonce that no transaction of the key's used must be seen to rise in that very block, by the block's hash.
    """
    try:
        blocks = {number: endpoint.call("eth_getBlockByNumber", [hex(number), True]) for number in set(places.values())}
        return [_read_use(endpoint, address, nonce, blocks[number]) for nonce, number in places.items()]
    except (RpcError, LookupError, TypeError, ValueError):
        return None


def _read_use(endpoint: Endpoint, address: str, nonce: int, block: NodeObject) -> _Use:
    number, block_hash = int(block["number"], 16), block["hash"]
    found = transaction_in(block, address, nonce)
    if found is None:
        places = [{"blockHash": block_hash}, {"blockHash": block["parentHash"]}]
        counts = answered(endpoint.batch([("eth_getTransactionCount", [address, place]) for place in places]))
        after, before = (int(count, 16) for count in counts)
        if not before <= nonce < after:
            raise LookupError("the nonce was not used in this block")
        return _Use(nonce, number, block_hash)
    receipt = read_receipt(endpoint.call("eth_getTransactionReceipt", [found["hash"]]))
    if receipt is None or (receipt.tx_hash, receipt.block_hash) != (found["hash"], block_hash):
        raise LookupError("no receipt of this block")
    return _Use(
        nonce=nonce,
        block_number=number,
        block_hash=block_hash,
        tx_hash=found["hash"],
        to_address=checksummed(found["to"]) if found.get("to") else None,
        value_wei=int(found["value"], 16),
        data=bytes.fromhex(found["input"][2:]),
        success=receipt.success,
    )


def _record(session: Session, signer: Signer, case: _Case, uses: Sequence[_Use]) -> None:
    """Store what was found. An external transaction in a message's own nonce with that message's payload was an attempt of
    it that the database has lost, so it is linked to that message, and to no other."""
    key = {"chain_id": signer.chain_id, "address": signer.address}
    for use in uses:
        message_id = case.taken.get(use.nonce)
        values = {**key, **asdict(use), "message_id": message_id}
        session.execute(insert(ExternalTransaction).values(values).on_conflict_do_nothing())
        message = session.get(Message, message_id) if message_id else None
        if message is not None and use.success and _payload(message) == (use.to_address, use.value_wei, use.data):
            values = {**key, "nonce": use.nonce, "message_id": message_id}
            session.execute(insert(ExternalMatch).values(values).on_conflict_do_nothing())


def _payload(message: Message) -> tuple[str, int, bytes]:
    return message.to_address, message.value_wei, bytes(message.data)
