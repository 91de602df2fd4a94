"""Another attempt in the same slot: a higher price, or an empty transaction that races the payload for its nonce.

Signing again under the same nonce is always safe, once it is stored before it is sent: at most one attempt of a slot
can ever be executed. Under the caps the stored bytes simply go out again, for as long as it takes.
"""

import structlog
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from relayer.chain.replies import DELIVERED, Reply
from relayer.chain.snapshot import Look
from relayer.context import RelayerContext
from relayer.lifecycle.fees import Market, raised, why_raise, within
from relayer.lifecycle.pending import Unmined, may_be_due
from relayer.signing.gas import TRANSFER_GAS
from relayer.signing.spending_caps import DailySums
from relayer.signing.transactions import SignatureMismatch, Signed, SignerUnavailable, Unsigned
from relayer.store.events import record
from relayer.store.models import Attempt, Message, Send
from relayer.store.states import UNMINED

log = structlog.get_logger(__name__)

REFUSED_FOR_GOOD = frozenset({Reply.BAD_TX, Reply.BAD_GAS})
REFUSALS_BEFORE_REJECTING = 3


def replace_due(context: RelayerContext, look: Look) -> int:
    """Sign another attempt where one is due; returns how many were."""
    if look.market is None:
        return 0
    _note_deadlines(context)
    _note_refusals(context)
    replaced = 0
    for slot in may_be_due(context, look, look.market):
        why = _why(slot, look.market)
        if why is not None:
            replaced += _replace(context, look, slot, why)
    return replaced


def _why(slot: Unmined, market: Market) -> str | None:
    if slot.intent != "none" and slot.kind != "noop":
        return slot.intent
    if slot.raise_asked:
        return "asked"
    return why_raise(slot.standing, market)


def _note_deadlines(context: RelayerContext) -> None:
    """Ask for the empty transaction of every message whose deadline has passed, by the database's clock."""
    reason = {"code": "deadline_passed", "detail": "The deadline passed; an empty transaction races it for its nonce."}
    late = Message.deadline <= func.clock_timestamp()
    _ask_for_noop(context, "expire", reason, Message.status.in_(UNMINED), late)


def _note_refusals(context: RelayerContext) -> None:
    """Ask for the empty transaction of a message that no node ever took and nodes keep calling invalid: it would stop
    every message behind it. Should it be mined all the same, that is its outcome."""
    taken = func.count().filter(Send.reply.in_([reply.value for reply in DELIVERED]))
    refused = func.count().filter(Send.reply.in_([reply.value for reply in REFUSED_FOR_GOOD]))
    hopeless = (
        select(Attempt.nonce)
        .join(Send, Send.tx_hash == Attempt.tx_hash)
        .where(Attempt.chain_id == Message.chain_id, Attempt.address == Message.from_address)
        .where(Attempt.nonce == Message.nonce)
        .group_by(Attempt.nonce)
        .having(taken == 0, refused >= REFUSALS_BEFORE_REJECTING)
        .correlate(Message)
        .exists()
    )
    reason = {"code": "refused_by_nodes", "detail": "Nodes call it invalid; an empty transaction takes its nonce."}
    _ask_for_noop(context, "reject", reason, Message.status == "signed", hopeless)


def _ask_for_noop(
    context: RelayerContext, intent: str, reason: dict[str, str], *which: ColumnElement[bool]
) -> None:  # fmt: skip
    """Note on each of these messages, unless one is noted already, why an empty transaction is to take its nonce."""
    with transaction(context.sessions) as session:
        rows = session.scalars(
            select(Message)
            .where(Message.intent == "none", *which)
            .order_by(Message.seq)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            row.intent, row.reason = intent, reason
            session.flush()
            record(session, row.message_id, f"{intent}_requested", reason)


def _replace(context: RelayerContext, look: Look, slot: Unmined, why: str) -> int:
    """Sign, then store in one transaction. A signature whose slot has moved on meanwhile is thrown away unsent."""
    noop = slot.intent != "none"
    gas_limit = TRANSFER_GAS if noop else slot.gas_limit
    fees = raised(slot.highest, slot.wanted)
    if within(fees, gas_limit, context.settings.max_gas_per_tx_wei) != fees:
        return _capped(context, slot, "MAX_GAS_PER_TX_WEI")
    unsigned = Unsigned(
        chain_id=context.settings.chain_id,
        sender=slot.sender,
        nonce=slot.nonce,
        to=slot.sender if noop else slot.to,
        value_wei=0 if noop else slot.value_wei,
        data=b"" if noop else slot.data,
        gas_limit=gas_limit,
        max_fee_wei=fees.max_fee_wei,
        tip_wei=fees.tip_wei,
    )
    more = 0 if noop else gas_limit * (fees.max_fee_wei - slot.highest.max_fee_wei)
    if not noop and more > _spare(look, slot):
        return _capped(context, slot, "balance")
    try:
        signed = context.settings.keyring.sign(unsigned)
    except (SignatureMismatch, SignerUnavailable, KeyError) as error:
        log.error("not_signed", message_id=slot.message_id, address=slot.sender, kind=type(error).__name__)
        return 0
    stored = _store(context, look, slot, unsigned, signed, why, more)
    crashpoint("relayer.replaced")
    return stored if stored >= 0 else _capped(context, slot, "MAX_GAS_PER_DAY_WEI")


def _spare(look: Look, slot: Unmined) -> int:
    """What the signer's balance bears beside this very transaction. Nodes look at one transaction at a time."""
    return look.signers[slot.sender].balance_wei - slot.value_wei - slot.gas_limit * slot.highest.max_fee_wei


def _store(
    context: RelayerContext, look: Look, slot: Unmined, unsigned: Unsigned, signed: Signed, why: str, more_wei: int
) -> int:  # fmt: skip
    """Returns 1, 0 when the slot has moved on, or -1 when the day's cap does not bear it."""
    kind = "noop" if slot.intent != "none" else "payload"
    with transaction(context.sessions) as session:
        row = _lock(session, slot)
        if row is None:
            return 0
        # An empty transaction may always be signed: it is cheap, and it is how spending is stopped.
        if kind == "payload" and not DailySums(session, context).bear_gas(more_wei):
            return -1
        session.add(
            Attempt(
                chain_id=unsigned.chain_id,
                address=unsigned.sender,
                nonce=unsigned.nonce,
                tx_hash=signed.tx_hash,
                number=slot.number + 1,
                kind=kind,
                raw=signed.raw,
                max_fee_per_gas_wei=unsigned.max_fee_wei,
                max_priority_fee_per_gas_wei=unsigned.tip_wei,
                gas_limit=unsigned.gas_limit,
                head=look.head,
            )
        )
        row.tx_hash = signed.tx_hash
        row.raise_asked = False
        row.reason = row.reason if slot.intent != "none" else None
        row.updated_at = func.clock_timestamp()
        session.flush()
        body = {"why": why, "kind": kind, "tx_hash": signed.tx_hash, **unsigned.price()}
        record(session, slot.message_id, "replaced", body)
        crashpoint("relayer.replacing")
    log.info("message_replaced", message_id=slot.message_id, **body)
    return 1


def _lock(session: Session, slot: Unmined) -> Message | None:
    """The message's row, if it is as it was read; another pump, or a caller's cancel, may have been quicker."""
    row = session.scalars(
        select(Message)
        .where(
            Message.message_id == slot.message_id, Message.status.in_(UNMINED), Message.intent == slot.intent
        )
        .with_for_update()
    ).one_or_none()  # fmt: skip
    if row is None:
        return None
    newest = session.scalar(
        select(func.max(Attempt.number)).where(
            Attempt.chain_id == row.chain_id, Attempt.address == row.from_address, Attempt.nonce == row.nonce
        )
    )
    return row if newest == slot.number else None


def _capped(context: RelayerContext, slot: Unmined, cap: str) -> int:
    """Say once that the price is held by a cap; the stored bytes go on being sent."""
    reason = {"code": "fee_capped", "detail": f"A higher price is held by {cap}; the stored bytes are sent again."}
    with transaction(context.sessions) as session:
        row = _lock(session, slot)
        if row is not None and row.reason != reason and slot.intent == "none":
            row.reason = reason
            session.flush()
            record(session, slot.message_id, "fee_capped", reason)
    return 0
