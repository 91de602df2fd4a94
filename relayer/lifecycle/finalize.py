"""The only place that ends a signed message, and the only one that believes a receipt.

A nonce is settled when the account's nonce at the horizon's block hash is above it; then every attempt of its slot but
the one with a canonical receipt is dead for ever. The hash that settled decides the outcome, never the intent. A
missing receipt, a reply of a node or the passing of time prove nothing and change nothing. Where two endpoints answer,
two must see an ending at the same block hashes.

`observed_block` of a message that is not final: the highest horizon block at which its nonce was certainly still
unused. So it was mined in no block up to and including `observed_block`, and as long as reorgs stay above the horizon
it never will be, whatever `block_number` says provisionally. It never goes down, and a message has it from its
signing on. Of a final message: the horizon at which it ended.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from relayer.chain.doubts import STRONG_AFTER, seen_again
from relayer.chain.evidence import Ending, agreed, find_occupant, why_reverted
from relayer.chain.reverts import UNKNOWN, Revert
from relayer.chain.snapshot import Look, OpenMessage, Receipt
from relayer.context import RelayerContext
from relayer.store.events import Event, record_all
from relayer.store.models import Attempt, Message, Signer, Slot, one_of
from relayer.store.states import OPEN

log = structlog.get_logger(__name__)

ROWS_PER_TRANSACTION = 200
_OF_INTENT = {"expire": "expired", "reject": "rejected"}


@dataclass
class _Change:
    """How a message stands from now on; what is not named is null."""

    message_id: str
    status: str
    tx_hash: str | None
    block_number: int | None = None
    block_hash: str | None = None
    gas_cost_wei: int | None = None
    reason: dict[str, Any] | None = None
    revert: dict[str, Any] | None = None


def settle(context: RelayerContext, look: Look, messages: Sequence[OpenMessage]) -> list[str]:
    """Bring all open messages up to what was looked at; returns the ids of those that ended."""
    endings: list[Ending] = []
    moved: list[tuple[OpenMessage, Receipt | None]] = []
    used: set[str] = set()
    for message in messages:
        receipt = look.receipt_of(message)
        if look.signers[message.address].settled > message.nonce:
            used.add(message.message_id)
            ending = _ending(context, look, message, receipt)
            if ending is not None:
                endings.append(ending)
        elif receipt is not None and receipt.block_number > look.horizon:
            moved.append((message, receipt))
        elif receipt is None and message.status == "mined" and message.message_id not in look.standing:
            moved.append((message, None))
    ended: list[str] = []
    seen_alike = agreed(context.settings, context.endpoints, look, endings)
    for start in range(0, len(seen_alike), ROWS_PER_TRANSACTION):
        ended += _finish(context, look, seen_alike[start : start + ROWS_PER_TRANSACTION])
    for start in range(0, len(moved), ROWS_PER_TRANSACTION):
        _move(context, look, moved[start : start + ROWS_PER_TRANSACTION])
    _observe(context, look, [row.message_id for row in messages if row.message_id not in used])
    return ended


def quarantine(session: Session, chain_id: int, address: str) -> None:
    """This key signs nothing more, ever: what else was signed with it nobody here knows."""
    session.execute(
        update(Signer)
        .where(Signer.chain_id == chain_id, Signer.address == address, Signer.state != "quarantined")
        .values(state="quarantined", updated_at=func.clock_timestamp())
    )


def _ending(context: RelayerContext, look: Look, message: OpenMessage, receipt: Receipt | None) -> Ending | None:
    """What ends a message whose nonce is used for ever, or None: an index may lag, a look may mix two moments."""
    if receipt is not None:
        return Ending(message, receipt=receipt) if receipt.block_number <= look.horizon else None
    occupant = find_occupant(look, message)
    if occupant is None or occupant.tx_hash in message.attempts:
        return None
    # The word of one node in one look ends nobody: the same stranger is seen again at a later block first.
    if seen_again(context.sessions, f"occupant:{message.message_id}", asdict(occupant), look.head) < STRONG_AFTER:
        return None
    return Ending(message, occupant=occupant)


def _finish(context: RelayerContext, look: Look, endings: Sequence[Ending]) -> list[str]:
    reverts = {
        ending.receipt.tx_hash: why_reverted(look.endpoint, ending.message, ending.receipt)
        for ending in endings
        if ending.receipt is not None and not ending.receipt.success
    }
    by_id = {ending.message.message_id: ending for ending in endings}
    with transaction(context.sessions) as session:
        hashes = [ending.receipt.tx_hash for ending in endings if ending.receipt is not None]
        kinds = session.execute(select(Attempt.tx_hash, Attempt.kind).where(Attempt.tx_hash.in_(hashes))).all()
        kind_of = {row.tx_hash: row.kind for row in kinds}
        changes, events = [], []
        for row in _lock(session, list(by_id)):
            ending = by_id[row.message_id]
            if ending.receipt is not None:
                revert = reverts.get(ending.receipt.tx_hash)
                change, event = _end_by_receipt(row, look, ending.receipt, kind_of[ending.receipt.tx_hash], revert)
            else:
                change, event = _end_by_stranger(session, row, look, ending)
            changes.append(change)
            events.append(event)
        _change(session, look, changes)
        _close_slots(session, [event.message_id for event in events if event.type == "settled"])
        record_all(session, events)
        crashpoint("relayer.settling")
    crashpoint("relayer.settled")
    for event in events:
        log.log(40 if event.type == "conflict" else 20, "message_ended", message_id=event.message_id, **event.body)
    return [event.message_id for event in events]


def _end_by_receipt(
    row: Row[Any], look: Look, receipt: Receipt, kind: str, revert: Revert | None
) -> tuple[_Change, Event]:  # fmt: skip
    """The slot's own receipt stands at the horizon: this is the outcome."""
    change = _Change(
        row.message_id, "confirmed", receipt.tx_hash, receipt.block_number, receipt.block_hash,
        gas_cost_wei=receipt.gas_cost_wei,
    )  # fmt: skip
    if kind == "noop":
        change.status = _OF_INTENT.get(row.intent, "cancelled")
        change.reason = {"code": "replaced", "detail": "An empty transaction of the same nonce was mined instead."}
    elif not receipt.success:
        found = revert or UNKNOWN
        change.status = "reverted"
        change.revert = {"name": found.name, "detail": found.detail}
    body = {"status": change.status, "tx_hash": receipt.tx_hash, "block_number": receipt.block_number}
    return change, Event(row.message_id, "settled", {**body, "block_hash": receipt.block_hash, **_proof(look)})


def _end_by_stranger(session: Session, row: Row[Any], look: Look, ending: Ending) -> tuple[_Change, Event]:
    """Somebody else's transaction is in the nonce's place for ever. It is found and named, never guessed."""
    occupant = ending.occupant
    if occupant is None:
        raise ValueError("an ending without receipt has an occupant")
    what = f"transaction {occupant.tx_hash}" if occupant.tx_hash else "no transaction of the signer's"
    detail = f"Nonce {row.nonce} of {row.from_address} was used in block {occupant.block_number} by {what}."
    session.execute(
        update(Slot)
        .where(Slot.message_id == row.message_id, Slot.state == "open")
        .values(state="foreign", settled_by=occupant.tx_hash),
        execution_options={"synchronize_session": False},
    )
    quarantine(session, row.chain_id, row.from_address)
    change = _Change(row.message_id, "conflict", row.tx_hash, reason={"code": "nonce_taken", "detail": detail})
    body = {"detail": detail, "block_hash": occupant.block_hash, **_proof(look)}
    return change, Event(row.message_id, "conflict", body)


def _proof(look: Look) -> dict[str, Any]:
    return {"horizon": look.horizon, "horizon_hash": look.horizon_hash, "endpoint": look.endpoint.number}


def _move(context: RelayerContext, look: Look, moved: Sequence[tuple[OpenMessage, Receipt | None]]) -> None:
    """Provisional: seen in a block above the horizon, or its block has left the chain. Nodes do not reliably put the
    transactions of such a block back, so the same bytes go out again."""
    by_id = {message.message_id: (message, receipt) for message, receipt in moved}
    with transaction(context.sessions) as session:
        changes, events = [], []
        for row in _lock(session, list(by_id)):
            message, receipt = by_id[row.message_id]
            if receipt is not None:
                reason = row.reason if row.intent != "none" else None
                place = (receipt.tx_hash, receipt.block_number, receipt.block_hash)
                changes.append(_Change(row.message_id, "mined", *place, reason=reason))
                body = {"tx_hash": receipt.tx_hash, "block_number": receipt.block_number}
                events.append(Event(row.message_id, "mined", {**body, "block_hash": receipt.block_hash}))
            elif row.status == "mined":
                body = {"block_number": row.block_number or 0, "block_hash": row.block_hash or ""}
                changes.append(_Change(row.message_id, "broadcast", message.attempts[-1], reason=row.reason))
                events.append(Event(row.message_id, "reorged", body))
                log.warning("message_reorged", message_id=row.message_id, **body)
        _change(session, look, changes)
        record_all(session, events)
        crashpoint("relayer.moving")
    crashpoint("relayer.moved")


def _observe(context: RelayerContext, look: Look, message_ids: Sequence[str]) -> None:
    """Note how far the nonces of these were looked for and found unused."""
    if not message_ids:
        return
    behind = (func.coalesce(Message.observed_block, -1) < look.horizon) | (
        func.coalesce(Message.observed_head, -1) < look.head
    )
    # Locked in one order and without waiting: another pump may be at the same rows.
    free = (
        select(Message.message_id)
        .where(
            one_of(Message.message_id, message_ids), Message.status.in_(OPEN), behind
        )
        .order_by(Message.seq)
        .with_for_update(skip_locked=True)
    )  # fmt: skip
    values: dict[Any, Any] = {
        Message.observed_block: func.greatest(func.coalesce(Message.observed_block, 0), look.horizon),
        Message.observed_head: func.greatest(func.coalesce(Message.observed_head, 0), look.head),
    }
    with transaction(context.sessions) as session:
        locked = session.scalars(free).all()
        if locked:
            session.execute(
                update(Message).where(one_of(Message.message_id, locked)).values(values),
                execution_options={"synchronize_session": False},
            )


def _lock(session: Session, message_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Those rows that are still open, in order of acceptance; another pump may have been quicker."""
    return session.execute(
        select(
            Message.message_id, Message.chain_id, Message.from_address, Message.nonce, Message.status, Message.intent,
            Message.reason, Message.tx_hash, Message.block_number, Message.block_hash,
        )
        .where(one_of(Message.message_id, message_ids), Message.status.in_(OPEN))
        .order_by(Message.seq)
        .with_for_update()
    ).all()  # fmt: skip


_CHANGE = text(
    """
    UPDATE messages SET status = new.status, tx_hash = new.tx_hash, block_number = new.block_number,
        block_hash = new.block_hash, gas_cost_wei = new.gas_cost_wei, reason = new.reason, revert = new.revert,
        observed_block = greatest(messages.observed_block, :horizon), observed_head = :head,
        updated_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new(message_id text, status text, tx_hash text,
        block_number bigint, block_hash text, gas_cost_wei wei, reason jsonb, revert jsonb)
    WHERE messages.message_id = new.message_id
    """
)


def _change(session: Session, look: Look, changes: Sequence[_Change]) -> None:
    """Write all changes, and note what was looked at. So only messages may be changed whose nonce is certainly unused
    at the horizon, or that end here."""
    if changes:
        rows = json.dumps([asdict(change) for change in changes])
        session.execute(_CHANGE, {"rows": rows, "horizon": look.horizon, "head": look.head})


def _close_slots(session: Session, message_ids: Sequence[str]) -> None:
    """Note in the slots by which of their attempts they were settled."""
    session.execute(
        update(Slot)
        .where(Slot.message_id.in_(message_ids), Slot.message_id == Message.message_id, Slot.state == "open")
        .values(state="settled", settled_by=Message.tx_hash),
        execution_options={"synchronize_session": False},
    )
