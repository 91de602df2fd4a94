"""Another attempt of the same nonce: at a higher price, or an empty transaction that races the payload for the nonce.

Signing again under the same nonce is always safe, as long as it is stored before it is sent: at most one attempt of a nonce
can ever be executed. Where a cap or the balance allows no higher price, the stored bytes are simply sent again.
"""

import structlog
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from apps.ethereum.constants import TRANSFER_GAS
from relayer.chain.replies import DELIVERED, Reply
from relayer.chain.snapshot import ChainSnapshot
from relayer.context import RelayerContext
from relayer.lifecycle.fees import Market, raised, why_raise, within
from relayer.lifecycle.pending import Unmined, may_be_due
from relayer.signing.spending_caps import SpendingSums
from relayer.signing.transactions import SignatureMismatch, Signed, SignerUnavailable, Unsigned
from relayer.store.events import record
from relayer.store.models import Attempt, Message, Send
from relayer.store.states import UNMINED, AttemptKind, Intent, TransactionStatus

log = structlog.get_logger(__name__)

REFUSED_FOR_GOOD = frozenset({Reply.BAD_TX, Reply.BAD_GAS})
REFUSALS_BEFORE_REJECTING = 3


def replace_due(context: RelayerContext, snapshot: ChainSnapshot) -> int:
    """Sign another attempt where one is due; returns how many were signed."""
    if snapshot.market is None:
        return 0
    _ask_after_deadlines(context)
    _ask_after_refusals(context)
    replaced = 0
    for unmined in may_be_due(context, snapshot, snapshot.market):
        why = _why(unmined, snapshot.market)
        if why is not None:
            replaced += _replace(context, snapshot, unmined, why)
    return replaced


def _why(unmined: Unmined, market: Market) -> str | None:
    if unmined.intent != Intent.NONE and unmined.kind != AttemptKind.NOOP:
        return unmined.intent
    if unmined.raise_asked:
        return "asked"
    return why_raise(unmined.attempt, market)


def _ask_after_deadlines(context: RelayerContext) -> None:
    """Ask for the empty transaction of every message whose deadline has passed, by the database's clock."""
    reason = {"code": "deadline_passed", "detail": "The deadline passed; an empty transaction races it for its nonce."}
    late = Message.deadline <= func.clock_timestamp()
    _ask_for_noop(context, Intent.EXPIRE, reason, Message.status.in_(UNMINED), late)


def _ask_after_refusals(context: RelayerContext) -> None:
    """Ask for the empty transaction of every message that no node ever took and that nodes keep calling invalid: it would
    hold up every message behind it. Should its payload be mined all the same, that is its outcome."""
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
    _ask_for_noop(context, Intent.REJECT, reason, Message.status == TransactionStatus.SIGNED, hopeless)


def _ask_for_noop(
    context: RelayerContext, intent: Intent, reason: dict[str, str], *which: ColumnElement[bool]
) -> None:  # fmt: skip
    """Note on each of these messages, unless one is noted already, why an empty transaction is to take its nonce."""
    with transaction(context.sessions) as session:
        rows = session.scalars(
            select(Message)
            .where(Message.intent == Intent.NONE, *which)
            .order_by(Message.seq)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            row.intent, row.reason = intent, reason
            session.flush()
            record(session, row.message_id, f"{intent}_requested", reason)


def _replace(context: RelayerContext, snapshot: ChainSnapshot, unmined: Unmined, why: str) -> int:
    """Sign, then store in one transaction. Where the message has changed meanwhile, the signature is thrown away unsent."""
    noop = unmined.intent != Intent.NONE
    gas_limit = TRANSFER_GAS if noop else unmined.gas_limit
    fees = raised(unmined.highest, unmined.wanted)
    if within(fees, gas_limit, context.settings.max_gas_per_tx_wei) != fees:
        return _capped(context, unmined, "MAX_GAS_PER_TX_WEI")
    unsigned = Unsigned(
        chain_id=context.settings.chain_id,
        sender=unmined.sender,
        nonce=unmined.nonce,
        to=unmined.sender if noop else unmined.to,
        value_wei=0 if noop else unmined.value_wei,
        data=b"" if noop else unmined.data,
        gas_limit=gas_limit,
        max_fee_wei=fees.max_fee_wei,
        tip_wei=fees.tip_wei,
    )
    more = 0 if noop else gas_limit * (fees.max_fee_wei - unmined.highest.max_fee_wei)
    if not noop and more > _spare(snapshot, unmined):
        return _capped(context, unmined, "balance")
    try:
        signed = context.settings.keyring.sign(unsigned)
    except (SignatureMismatch, SignerUnavailable, KeyError) as error:
        log.error("not_signed", message_id=unmined.message_id, address=unmined.sender, kind=type(error).__name__)
        return 0
    stored = _store(context, snapshot, unmined, unsigned, signed, why, more)
    crashpoint("relayer.replaced")
    return stored if stored >= 0 else _capped(context, unmined, "MAX_GAS_PER_DAY_WEI")


def _spare(snapshot: ChainSnapshot, unmined: Unmined) -> int:
    """The balance in wei that is left after this message's value and its highest signed gas cost. A node checks each pending
    transaction against the balance alone, so the sum is checked here."""
    return (
        snapshot.signers[unmined.sender].balance_wei
        - unmined.value_wei
        - unmined.gas_limit * unmined.highest.max_fee_wei
    )


def _store(
    context: RelayerContext,
    snapshot: ChainSnapshot,
    unmined: Unmined,
    unsigned: Unsigned,
    signed: Signed,
    why: str,
    more_wei: int,
) -> int:
    """Returns 1; 0 where the message has changed meanwhile; -1 where the day's cap for gas does not allow it."""
    kind = AttemptKind.NOOP if unmined.intent != Intent.NONE else AttemptKind.PAYLOAD
    with transaction(context.sessions) as session:
        row = _lock(session, unmined)
        if row is None:
            return 0
        # An empty transaction may always be signed: it is cheap, and it is how spending is stopped.
        if kind == AttemptKind.PAYLOAD and not SpendingSums(session, context).add_gas(more_wei):
            return -1
        session.add(
            Attempt(
                chain_id=unsigned.chain_id,
                address=unsigned.sender,
                nonce=unsigned.nonce,
                tx_hash=signed.tx_hash,
                number=unmined.number + 1,
                kind=kind,
                raw=signed.raw,
                max_fee_per_gas_wei=unsigned.max_fee_wei,
                max_priority_fee_per_gas_wei=unsigned.tip_wei,
                gas_limit=unsigned.gas_limit,
                head=snapshot.head,
            )
        )
        row.tx_hash = signed.tx_hash
        row.raise_asked = False
        row.reason = row.reason if unmined.intent != Intent.NONE else None
        row.updated_at = func.clock_timestamp()
        session.flush()
        body = {"why": why, "kind": kind, "tx_hash": signed.tx_hash, **unsigned.price()}
        record(session, unmined.message_id, "replaced", body)
        crashpoint("relayer.replacing")
    log.info("message_replaced", message_id=unmined.message_id, **body)
    return 1


def _lock(session: Session, unmined: Unmined) -> Message | None:
    """The message's row, locked, if it is as it was read; another pump, or a caller's cancel, may have changed it."""
    row = session.scalars(
        select(Message)
        .where(
            Message.message_id == unmined.message_id, Message.status.in_(UNMINED), Message.intent == unmined.intent
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
    return row if newest == unmined.number else None


def _capped(context: RelayerContext, unmined: Unmined, cap: str) -> int:
    """Note once that a cap or the balance allows no higher price; the stored bytes are sent again."""
    reason = {"code": "fee_capped", "detail": f"A higher price is held by {cap}; the stored bytes are sent again."}
    with transaction(context.sessions) as session:
        row = _lock(session, unmined)
        if row is not None and row.reason != reason and unmined.intent == Intent.NONE:
            row.reason = reason
            session.flush()
            record(session, unmined.message_id, "fee_capped", reason)
    return 0
