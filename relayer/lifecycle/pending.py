"""Messages with a nonce and without a receipt: those that may need another attempt. Reads only; `replace` acts."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from apps.common.database import transaction
from relayer.chain.replies import Reply
from relayer.chain.snapshot import ChainSnapshot
from relayer.context import RelayerContext
from relayer.lifecycle.fees import (
    RAISE_AFTER_BLOCKS,
    RAISE_AFTER_BLOCKS_MOST_URGENT,
    RAISE_AFTER_SEC,
    Fees,
    Market,
    PendingAttempt,
)
from relayer.store.messages import Requested
from relayer.store.models import Attempt, Message, NonceRow, Send, Signer
from relayer.store.states import REPLACING, UNMINED, AttemptKind, Intent, TransactionStatus

_PRICE_REFUSALS = frozenset({Reply.UNDERPRICED, Reply.REPLACEMENT_UNDERPRICED})


@dataclass(frozen=True, kw_only=True)
class Unmined(Requested):
    """An unmined message with its newest attempt, and what the market asks of it now (`wanted`).

    `number` and `kind` are the attempt's; `highest`: the highest of each fee over all attempts of the nonce.
    """

    nonce: int
    intent: Intent
    raise_asked: bool
    number: int
    kind: AttemptKind
    highest: Fees
    wanted: Fees
    attempt: PendingAttempt


def may_be_due(context: RelayerContext, snapshot: ChainSnapshot, market: Market) -> list[Unmined]:
    """Those that may need another attempt, lowest nonces first. Thousands that only wait behind a lower nonce are not read
    at every tick."""
    found: list[Unmined] = []
    with transaction(context.sessions) as session:
        for address, view in snapshot.signers.items():
            next_since = _next_since(session, context, snapshot, address)
            values = {
                "chain_id": context.settings.chain_id,
                "address": address,
                "latest": view.latest,
                "head": snapshot.head,
                "base_fee_wei": market.base_fee_wei,
            }
            rows = session.execute(_query(), values)
            found += [_unmined(row, address, snapshot, market, next_since) for row in rows]
    return found


def _unmined(row: Row[Any], address: str, snapshot: ChainSnapshot, market: Market, next_since: int) -> Unmined:
    # An empty transaction is not urgent: its message's deadline has passed, or its caller gave it up.
    urgency = market.urgency(row.deadline if row.intent == Intent.NONE else None)
    is_next = row.nonce == snapshot.signers[address].latest
    return Unmined(
        message_id=row.message_id,
        sender=address,
        nonce=row.nonce,
        to=row.to_address,
        data=bytes(row.data),
        value_wei=row.value_wei,
        gas_limit=row.gas_limit,
        intent=Intent(row.intent),
        raise_asked=row.raise_asked,
        number=row.number,
        kind=AttemptKind(row.kind),
        highest=Fees(int(row.highest_max_fee), int(row.highest_tip)),
        wanted=market.fees(urgency),
        attempt=PendingAttempt(
            fees=Fees(row.max_fee_per_gas_wei, row.max_priority_fee_per_gas_wei),
            waited_blocks=snapshot.head - row.head,
            waited_sec=float(row.age),
            waited_blocks_next_in_line=snapshot.head - max(row.head, next_since) if is_next else 0,
            refused_by_price=row.refused,
            urgency=urgency,
        ),
    )


def _next_since(session: Session, context: RelayerContext, snapshot: ChainSnapshot, address: str) -> int:
    """The block since which the signer's lowest unmined nonce is first in line: the one that mined the nonce before it.

    0 where this is the first nonce that was given here. Where an external transaction used the previous nonce, its message's
    `observed_block` is an upper bound; a block that is not known yet counts as the head.
    """
    by_external = case((Message.status == TransactionStatus.CONFLICT, Message.observed_block))
    previous = (
        select(func.coalesce(Message.block_number, by_external, snapshot.head))
        .join(NonceRow, NonceRow.message_id == Message.message_id)
        .where(NonceRow.chain_id == context.settings.chain_id, NonceRow.address == address)
        .where(NonceRow.nonce == snapshot.signers[address].latest - 1)
    )
    return session.scalar(previous) or 0


@cache
def _query() -> Select[Any]:
    """Every message for which another attempt could be signed; `relayer.lifecycle.replace` and `why_raise` decide."""
    latest = bindparam("latest", type_=BigInteger)
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
    waited = or_(newest.c.head <= bindparam("head", type_=BigInteger) - after, age >= RAISE_AFTER_SEC)
    cheap = newest.c.max_fee_per_gas_wei < bindparam("base_fee_wei")
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
        .where(Message.chain_id == bindparam("chain_id"), Message.from_address == bindparam("address"))
        .where(Message.status.in_(UNMINED), Signer.state.in_(REPLACING), Message.nonce >= latest)
        .where(
            or_(
                Message.intent != Intent.NONE,
                Message.raise_asked,
                and_(waited, or_(Message.nonce == latest, cheap, refused)),
            )
        )
        .order_by(Message.nonce)
    )  # fmt: skip


def _highest(fee: InstrumentedAttribute[int], own: tuple[ColumnElement[bool], ...]) -> ScalarSelect[int | None]:
    return select(func.max(fee)).where(*own).correlate(Message).scalar_subquery()
