"""The only place that ends a signed message, and the only one that believes a receipt.

A nonce is settled when the account's nonce at the horizon's block hash is above it; then every attempt of its slot but
the one with a canonical receipt is dead for ever. The hash that settled decides the outcome, never the intent. A
missing receipt, a reply of a node or the passing of time prove nothing and change nothing.

`observed_block` of a message that is not final: the highest horizon block at which its nonce was certainly still
unused. So it was mined in no block up to and including `observed_block`, and as long as reorgs stay above the horizon
it never will be, whatever `block_number` says provisionally. It never goes down, and a message has it from its
signing on. Of a final message: the horizon at which it ended.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from relayer.chain import Look, Occupant, OpenMessage, Receipt
from relayer.context import RelayerContext
from relayer.events import record
from relayer.models import OPEN, Attempt, Message, Signer, Slot
from relayer.reverts import UNKNOWN

log = structlog.get_logger(__name__)


def settle(context: RelayerContext, look: Look, messages: Sequence[OpenMessage]) -> int:
    """Bring all open messages up to what was looked at; returns how many ended."""
    ended = 0
    unchanged: list[str] = []
    for message in messages:
        view = look.signers.get(message.address)
        if view is None:
            log.error("signer_key_missing", message_id=message.message_id, address=message.address)
            continue
        receipt = look.receipt_of(message)
        used = view.settled > message.nonce
        if used and receipt is not None and receipt.block_number <= look.horizon:
            ended += _finish(context, look, message, receipt)
        elif used:
            ended += _missing(context, look, message)
        elif receipt is not None and receipt.block_number > look.horizon:
            if message.status == "mined" and message.block_hash == receipt.block_hash:
                unchanged.append(message.message_id)
            else:
                _mined(context, look, message, receipt)
        elif receipt is None and message.status == "mined":
            _reorged(context, look, message)
        elif receipt is None:
            unchanged.append(message.message_id)
    _observe(context, look, unchanged)
    return ended


def _finish(context: RelayerContext, look: Look, message: OpenMessage, receipt: Receipt) -> int:
    """The slot's own receipt stands at the horizon: this is the outcome."""
    with transaction(context.sessions) as session:
        row = _lock(session, message)
        if row is None:
            return 0
        kind = session.scalar(select(Attempt.kind).where(Attempt.tx_hash == receipt.tx_hash))
        row.tx_hash = receipt.tx_hash
        row.block_number = receipt.block_number
        row.block_hash = receipt.block_hash
        row.gas_cost_wei = receipt.gas_cost_wei
        row.reason = None
        if kind == "noop":
            row.status = {"expire": "expired", "reject": "rejected"}.get(row.intent, "cancelled")
            row.reason = {"code": "replaced", "detail": "An empty transaction of the same nonce was mined instead."}
        elif receipt.success:
            row.status = "confirmed"
        else:
            found = look.reverts.get(receipt.tx_hash, UNKNOWN)
            row.status = "reverted"
            row.revert = {"name": found.name, "detail": found.detail}
        _look_was(row, look)
        _close_slot(session, message, "settled", receipt.tx_hash)
        body = {"status": row.status, "tx_hash": receipt.tx_hash, "block_number": receipt.block_number}
        proof = {"block_hash": receipt.block_hash, "horizon": look.horizon}
        record(session, message.message_id, "settled", {**body, **proof})
    crashpoint("relayer.settled")
    log.info("message_ended", message_id=message.message_id, **body)
    return 1


def _missing(context: RelayerContext, look: Look, message: OpenMessage) -> int:
    """The nonce is used for ever and no attempt has a receipt: an index lags, or somebody else used the key."""
    occupant = look.occupants.get(message.message_id)
    if occupant is None or occupant.tx_hash in message.attempts:
        return 0
    return _conflict(context, look, message, occupant)


def _conflict(context: RelayerContext, look: Look, message: OpenMessage, occupant: Occupant) -> int:
    what = f"transaction {occupant.tx_hash}" if occupant.tx_hash else "no transaction of the signer's"
    detail = f"Nonce {message.nonce} of {message.address} was used in block {occupant.block_number} by {what}."
    with transaction(context.sessions) as session:
        row = _lock(session, message)
        if row is None:
            return 0
        row.status = "conflict"
        row.reason = {"code": "nonce_taken", "detail": detail}
        row.block_number = row.block_hash = None
        _look_was(row, look)
        _close_slot(session, message, "foreign", occupant.tx_hash)
        quarantine(session, row.chain_id, message.address)
        record(session, message.message_id, "conflict", {"detail": detail, "horizon": look.horizon})
    log.error("signer_used_by_somebody_else", message_id=message.message_id, detail=detail)
    return 1


def _mined(context: RelayerContext, look: Look, message: OpenMessage, receipt: Receipt) -> None:
    """Provisional: undone when the block leaves the chain."""
    with transaction(context.sessions) as session:
        row = _lock(session, message)
        if row is None:
            return
        row.status = "mined"
        row.tx_hash = receipt.tx_hash
        row.block_number = receipt.block_number
        row.block_hash = receipt.block_hash
        row.reason = None
        _look_was(row, look)
        body = {"tx_hash": receipt.tx_hash, "block_number": receipt.block_number, "block_hash": receipt.block_hash}
        record(session, message.message_id, "mined", body)


def _reorged(context: RelayerContext, look: Look, message: OpenMessage) -> None:
    """Its block left the chain, and nodes do not reliably put its transactions back: the same bytes go out again."""
    with transaction(context.sessions) as session:
        row = _lock(session, message)
        if row is None or row.status != "mined":
            return
        body = {"block_number": row.block_number, "block_hash": row.block_hash}
        row.status = "broadcast"
        row.block_number = row.block_hash = None
        row.tx_hash = message.attempts[-1]
        _look_was(row, look)
        record(session, message.message_id, "reorged", body)
    log.warning("message_reorged", message_id=message.message_id, **body)


def quarantine(session: Session, chain_id: int, address: str) -> None:
    """Nothing more is signed with this key until ops have looked."""
    session.execute(
        update(Signer)
        .where(Signer.chain_id == chain_id, Signer.address == address, Signer.state != "quarantined")
        .values(state="quarantined", updated_at=func.clock_timestamp())
    )


def _observe(context: RelayerContext, look: Look, message_ids: Sequence[str]) -> None:
    if not message_ids:
        return
    with transaction(context.sessions) as session:
        # Locked in one order and without waiting: another pump may be at the same rows.
        free = session.scalars(
            select(Message.message_id)
            .where(Message.message_id.in_(message_ids), Message.status.in_(OPEN))
            .order_by(Message.seq)
            .with_for_update(skip_locked=True)
        ).all()
        values: dict[Any, Any] = {
            Message.observed_block: func.greatest(func.coalesce(Message.observed_block, 0), look.horizon),
            Message.observed_head: func.greatest(func.coalesce(Message.observed_head, 0), look.head),
        }
        session.execute(
            update(Message).where(Message.message_id.in_(free)).values(values),
            execution_options={"synchronize_session": False},
        )


def _lock(session: Session, message: OpenMessage) -> Message | None:
    """The message's row, if it is still open; another pump may have been quicker."""
    return session.scalars(
        select(Message).where(Message.message_id == message.message_id, Message.status.in_(OPEN)).with_for_update()
    ).one_or_none()


def _look_was(row: Message, look: Look) -> None:
    """Note what was looked at. Only callers that know the nonce unused at the horizon, or the message ended, may."""
    row.observed_block = max(row.observed_block or 0, look.horizon)
    row.observed_head = look.head
    row.updated_at = func.clock_timestamp()


def _close_slot(session: Session, message: OpenMessage, state: str, settled_by: str | None) -> None:
    session.execute(
        update(Slot).where(Slot.message_id == message.message_id).values(state=state, settled_by=settled_by),
        execution_options={"synchronize_session": False},
    )
