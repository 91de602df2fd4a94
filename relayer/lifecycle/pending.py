"""How unmined messages stand: what is known of those that may need another attempt. Reads only; `replace` acts."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, case, func, or_, select, true
from sqlalchemy.orm import Session

from apps.common.database import transaction
from relayer.chain.replies import Reply
from relayer.chain.snapshot import Look
from relayer.context import RelayerContext
from relayer.lifecycle.fees import (
    RAISE_AFTER_BLOCKS,
    RAISE_AFTER_BLOCKS_MOST_URGENT,
    RAISE_AFTER_SEC,
    Fees,
    Market,
    Standing,
)
from relayer.store.models import Attempt, Message, Send, Signer, Slot
from relayer.store.states import UNMINED

_PRICE_REFUSALS = frozenset({Reply.UNDERPRICED, Reply.REPLACEMENT_UNDERPRICED})


@dataclass(frozen=True)
class Unmined:
    """An unmined message with its newest attempt, as read, and what the market asks of it now (`wanted`)."""

    message_id: str
    sender: str
    nonce: int
    to: str
    data: bytes
    value_wei: int
    gas_limit: int
    intent: str
    raise_asked: bool
    number: int
    kind: str
    highest: Fees
    wanted: Fees
    standing: Standing


def may_be_due(context: RelayerContext, look: Look, market: Market) -> list[Unmined]:
    """Those that may be due, lowest nonces first: thousands that only wait in line are not read at every tick."""
    found: list[Unmined] = []
    with transaction(context.sessions) as session:
        for address, view in look.signers.items():
            next_since = _next_since(session, context, look, address)
            rows = session.execute(_query(context, look, market, address, view.latest))
            found += [_unmined(row, address, look, market, next_since) for row in rows]
    return found


def _unmined(row: Any, address: str, look: Look, market: Market, next_since: int) -> Unmined:
    # An empty transaction is in no hurry: its message's deadline has passed, or its caller gave it up.
    urgency = market.urgency(row.deadline if row.intent == "none" else None)
    is_next = row.nonce == look.signers[address].latest
    return Unmined(
        message_id=row.message_id,
        sender=address,
        nonce=row.nonce,
        to=row.to_address,
        data=bytes(row.data),
        value_wei=row.value_wei,
        gas_limit=row.gas_limit,
        intent=row.intent,
        raise_asked=row.raise_asked,
        number=row.number,
        kind=row.kind,
        highest=Fees(int(row.highest_max_fee), int(row.highest_tip)),
        wanted=market.fees(urgency),
        standing=Standing(
            fees=Fees(row.max_fee_per_gas_wei, row.max_priority_fee_per_gas_wei),
            waited_blocks=look.head - row.head,
            waited_sec=float(row.age),
            waited_blocks_next_in_line=look.head - max(row.head, next_since) if is_next else 0,
            refused_by_price=row.refused,
            urgency=urgency,
        ),
    )


def _next_since(session: Session, context: RelayerContext, look: Look, address: str) -> int:
    """The block that mined the nonce before the one that is next, so that this one became next in line; 0 where the
    first nonce given here is next. A stranger's transaction mined it at `observed_block` or before; one whose block is
    not known yet was mined just now, as far as anybody can tell."""
    by_stranger = case((Message.status == "conflict", Message.observed_block))
    previous = (
        select(func.coalesce(Message.block_number, by_stranger, look.head))
        .join(Slot, Slot.message_id == Message.message_id)
        .where(Slot.chain_id == context.settings.chain_id, Slot.address == address)
        .where(Slot.nonce == look.signers[address].latest - 1)
    )
    return session.scalar(previous) or 0


def _query(context: RelayerContext, look: Look, market: Market, address: str, latest: int) -> Select[Any]:
    """Whatever another attempt could be signed for; see `relayer.lifecycle.replace` and `why_raise`, which decide."""
    own = (
        Attempt.chain_id == Message.chain_id,
        Attempt.address == Message.from_address,
        Attempt.nonce == Message.nonce,
    )
    newest = select(Attempt).where(*own).order_by(Attempt.number.desc()).limit(1).correlate(Message).lateral("newest")
    refused = (
        select(Send.id)
        .where(Send.tx_hash == newest.c.tx_hash, Send.reply.in_([reply.value for reply in _PRICE_REFUSALS]))
        .correlate(newest)
        .exists()
    )
    age = func.extract("epoch", func.clock_timestamp() - newest.c.created_at)
    after = case((Message.deadline.is_(None), RAISE_AFTER_BLOCKS), else_=RAISE_AFTER_BLOCKS_MOST_URGENT)
    waited = or_(newest.c.head <= look.head - after, age >= RAISE_AFTER_SEC)
    cheap = newest.c.max_fee_per_gas_wei < market.base_fee_wei
    return (
        select(
            Message.message_id, Message.nonce, Message.to_address, Message.data, Message.value_wei, Message.gas_limit,
            Message.intent, Message.raise_asked, Message.deadline,
            newest.c.number, newest.c.kind, newest.c.head, newest.c.max_fee_per_gas_wei,
            newest.c.max_priority_fee_per_gas_wei, age.label("age"), refused.label("refused"),
            _highest(Attempt.max_fee_per_gas_wei, own).label("highest_max_fee"),
            _highest(Attempt.max_priority_fee_per_gas_wei, own).label("highest_tip"),
        )
        .select_from(Message)
        .join(newest, true())
        .join(Signer, (Signer.chain_id == Message.chain_id) & (Signer.address == Message.from_address))
        .where(Message.chain_id == context.settings.chain_id, Message.from_address == address)
        .where(Message.status.in_(UNMINED), Signer.state.in_(("active", "draining")), Message.nonce >= latest)
        .where(
            or_(
                Message.intent != "none",
                Message.raise_asked,
                and_(waited, or_(Message.nonce == latest, cheap, refused)),
            )
        )
        .order_by(Message.nonce)
    )  # fmt: skip


def _highest(fee: Any, own: tuple[ColumnElement[bool], ...]) -> ScalarSelect[Any]:
    return select(func.max(fee)).where(*own).correlate(Message).scalar_subquery()
