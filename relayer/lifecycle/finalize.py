"""The only place that ends a signed message, and the only one that believes a receipt.

A nonce is settled when the account's nonce at the horizon's block hash is above it: then none of its attempts but the one
with a canonical receipt can ever be executed. The hash that settled decides the outcome, never the intent. A missing
receipt, a reply of a node or the passing of time prove nothing and change nothing. Where two endpoints answer, two must see
an ending at the same block hashes.

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
from apps.common.database import one_of, transaction
from apps.ethereum.reverts import UNKNOWN, Revert
from relayer.chain.doubts import STRONG_AFTER, seen_again
from relayer.chain.evidence import Ending, agreed, find_nonce_user, why_reverted
from relayer.chain.snapshot import ChainSnapshot, Receipt
from relayer.context import RelayerContext
from relayer.lifecycle.quarantine import quarantine
from relayer.store.events import Event, record_all
from relayer.store.messages import OpenMessage
from relayer.store.models import Attempt, Message, NonceRow
from relayer.store.states import END_OF_INTENT, OPEN, AttemptKind, Intent, NonceState, TransactionStatus

log = structlog.get_logger(__name__)

ROWS_PER_TRANSACTION = 200


@dataclass
class _Change:
    """A message's new state; what is not named becomes null."""

    message_id: str
    status: TransactionStatus
    tx_hash: str | None
    block_number: int | None = None
    block_hash: str | None = None
    gas_cost_wei: int | None = None
    reason: dict[str, str] | None = None
    revert: dict[str, str] | None = None


def finalize(context: RelayerContext, snapshot: ChainSnapshot, messages: Sequence[OpenMessage]) -> list[str]:
    """Bring all open messages up to what the snapshot shows; returns the ids of those that ended."""
    endings: list[Ending] = []
    moved: list[tuple[OpenMessage, Receipt | None]] = []
    used: set[str] = set()
    for message in messages:
        receipt = snapshot.receipt_of(message)
        if snapshot.signers[message.sender].settled > message.nonce:
            used.add(message.message_id)
            ending = _ending(context, snapshot, message, receipt)
            if ending is not None:
                endings.append(ending)
        elif receipt is not None and receipt.block_number > snapshot.horizon:
            moved.append((message, receipt))
        elif message.status == TransactionStatus.MINED and not snapshot.is_mined(message):
            moved.append((message, None))
    ended: list[str] = []
    seen_alike = agreed(context.settings, context.endpoints, snapshot, endings)
    for start in range(0, len(seen_alike), ROWS_PER_TRANSACTION):
        ended += _finish(context, snapshot, seen_alike[start : start + ROWS_PER_TRANSACTION])
    for start in range(0, len(moved), ROWS_PER_TRANSACTION):
        _move(context, snapshot, moved[start : start + ROWS_PER_TRANSACTION])
    _observe(context, snapshot, [row.message_id for row in messages if row.message_id not in used])
    return ended


def _ending(
    context: RelayerContext, snapshot: ChainSnapshot, message: OpenMessage, receipt: Receipt | None
) -> Ending | None:
    """What ends a message whose nonce is settled. None where that is not clear yet: a node's index of receipts may lag
    behind its state."""
    if receipt is not None:
        return Ending(message, receipt=receipt) if receipt.block_number <= snapshot.horizon else None
    nonce_user = find_nonce_user(snapshot, message)
    if nonce_user is None or nonce_user.tx_hash in message.attempts:
        return None
    # What one node says once ends no message: the same external transaction must be seen again at a later block. The
    # subject is that of earlier releases, whose doubts are still counted.
    if seen_again(context.sessions, f"occupant:{message.message_id}", asdict(nonce_user), snapshot.head) < STRONG_AFTER:
        return None
    return Ending(message, nonce_user=nonce_user)


def _finish(context: RelayerContext, snapshot: ChainSnapshot, endings: Sequence[Ending]) -> list[str]:
    reverts = {
        ending.receipt.tx_hash: why_reverted(snapshot.endpoint, ending.message, ending.receipt)
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
                change, event = _end_by_receipt(row, snapshot, ending.receipt, kind_of[ending.receipt.tx_hash], revert)
            else:
                change, event = _end_by_external(session, row, snapshot, ending)
            changes.append(change)
            events.append(event)
        _change(session, snapshot, changes)
        _close_nonces(session, [event.message_id for event in events if event.type == "settled"])
        record_all(session, events)
        crashpoint("relayer.settling")
    crashpoint("relayer.settled")
    for event in events:
        log.log(40 if event.type == "conflict" else 20, "message_ended", message_id=event.message_id, **event.body)
    return [event.message_id for event in events]


def _end_by_receipt(
    row: Row[Any], snapshot: ChainSnapshot, receipt: Receipt, kind: str, revert: Revert | None
) -> tuple[_Change, Event]:  # fmt: skip
    """One of the message's own attempts has a receipt at or below the horizon: this is the outcome."""
    change = _Change(
        row.message_id, TransactionStatus.CONFIRMED, receipt.tx_hash, receipt.block_number, receipt.block_hash,
        gas_cost_wei=receipt.gas_cost_wei,
    )  # fmt: skip
    if kind == AttemptKind.NOOP:
        change.status = END_OF_INTENT[Intent(row.intent)]
        change.reason = {"code": "replaced", "detail": "An empty transaction of the same nonce was mined instead."}
    elif not receipt.success:
        found = revert or UNKNOWN
        change.status = TransactionStatus.REVERTED
        change.revert = {"name": found.name, "detail": found.detail}
    body = {"status": change.status, "tx_hash": receipt.tx_hash, "block_number": receipt.block_number}
    return change, Event(row.message_id, "settled", {**body, "block_hash": receipt.block_hash, **_proof(snapshot)})


def _end_by_external(session: Session, row: Row[Any], snapshot: ChainSnapshot, ending: Ending) -> tuple[_Change, Event]:
    """An external transaction used the nonce, settled so. Which one it is was read from the chain, never guessed."""
    nonce_user = ending.nonce_user
    if nonce_user is None:
        raise ValueError("an ending without receipt names what used the nonce")
    what = f"transaction {nonce_user.tx_hash}" if nonce_user.tx_hash else "no transaction of the signer's"
    detail = f"Nonce {row.nonce} of {row.from_address} was used in block {nonce_user.block_number} by {what}."
    session.execute(
        update(NonceRow)
        .where(NonceRow.message_id == row.message_id, NonceRow.state == NonceState.OPEN)
        .values(state=NonceState.EXTERNAL, settled_by=nonce_user.tx_hash),
        execution_options={"synchronize_session": False},
    )
    quarantine(session, row.chain_id, row.from_address)
    change = _Change(
        row.message_id, TransactionStatus.CONFLICT, row.tx_hash, reason={"code": "nonce_taken", "detail": detail}
    )
    body = {"detail": detail, "block_hash": nonce_user.block_hash, **_proof(snapshot)}
    return change, Event(row.message_id, "conflict", body)


def _proof(snapshot: ChainSnapshot) -> dict[str, object]:
    """What the history keeps as evidence of an ending: the horizon, and the endpoint that showed it."""
    return {"horizon": snapshot.horizon, "horizon_hash": snapshot.horizon_hash, "endpoint": snapshot.endpoint.number}


def _move(
    context: RelayerContext, snapshot: ChainSnapshot, moved: Sequence[tuple[OpenMessage, Receipt | None]]
) -> None:
    """Write what is provisional: a message was seen in a block above the horizon, or its block has left the chain. Nodes do
    not reliably put the transactions of such a block back into their pools, so the same bytes are sent again."""
    by_id = {message.message_id: (message, receipt) for message, receipt in moved}
    with transaction(context.sessions) as session:
        changes, events = [], []
        for row in _lock(session, list(by_id)):
            message, receipt = by_id[row.message_id]
            if receipt is not None:
                reason = row.reason if row.intent != Intent.NONE else None
                place = (receipt.tx_hash, receipt.block_number, receipt.block_hash)
                changes.append(_Change(row.message_id, TransactionStatus.MINED, *place, reason=reason))
                body = {"tx_hash": receipt.tx_hash, "block_number": receipt.block_number}
                events.append(Event(row.message_id, "mined", {**body, "block_hash": receipt.block_hash}))
            elif row.status == TransactionStatus.MINED:
                body = {"block_number": row.block_number or 0, "block_hash": row.block_hash or ""}
                changes.append(
                    _Change(row.message_id, TransactionStatus.BROADCAST, message.attempts[-1], reason=row.reason)
                )
                events.append(Event(row.message_id, "reorged", body))
                log.warning("message_reorged", message_id=row.message_id, **body)
        _change(session, snapshot, changes)
        record_all(session, events)
        crashpoint("relayer.moving")
    crashpoint("relayer.moved")


def _observe(context: RelayerContext, snapshot: ChainSnapshot, message_ids: Sequence[str]) -> None:
    """Note up to which block the nonces of these messages were found unused."""
    if not message_ids:
        return
    behind = (func.coalesce(Message.observed_block, -1) < snapshot.horizon) | (
        func.coalesce(Message.observed_head, -1) < snapshot.head
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
        Message.observed_block: func.greatest(func.coalesce(Message.observed_block, 0), snapshot.horizon),
        Message.observed_head: func.greatest(func.coalesce(Message.observed_head, 0), snapshot.head),
    }
    with transaction(context.sessions) as session:
        locked = session.scalars(free).all()
        if locked:
            session.execute(
                update(Message).where(one_of(Message.message_id, locked)).values(values),
                execution_options={"synchronize_session": False},
            )


def _lock(session: Session, message_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Those rows that are still open, locked, in order of acceptance; another pump may have ended some of them."""
    columns: tuple[Any, ...] = (
        Message.message_id, Message.chain_id, Message.from_address, Message.nonce, Message.status, Message.intent,
        Message.reason, Message.tx_hash, Message.block_number, Message.block_hash,
    )  # fmt: skip
    return session.execute(
        select(*columns)
        .where(one_of(Message.message_id, message_ids), Message.status.in_(OPEN))
        .order_by(Message.seq)
        .with_for_update()
    ).all()


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


def _change(session: Session, snapshot: ChainSnapshot, changes: Sequence[_Change]) -> None:
    """Write all changes, and the horizon and head of the snapshot. So only messages may be changed whose nonce is certainly
    unused at the horizon, or that end here."""
    if changes:
        rows = json.dumps([asdict(change) for change in changes])
        session.execute(_CHANGE, {"rows": rows, "horizon": snapshot.horizon, "head": snapshot.head})


def _close_nonces(session: Session, message_ids: Sequence[str]) -> None:
    """Note on the nonces by which of their attempts they were settled."""
    session.execute(
        update(NonceRow)
        .where(
            NonceRow.message_id.in_(message_ids),
            NonceRow.message_id == Message.message_id,
            NonceRow.state == NonceState.OPEN,
        )
        .values(state=NonceState.SETTLED, settled_by=Message.tx_hash),
        execution_options={"synchronize_session": False},
    )
