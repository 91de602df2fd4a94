"""Why a transaction is not mined yet, or how it ended: what ops would otherwise gather by hand."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from apps.clients.shapes import relayer as shapes
from apps.clients.shapes.common import Reason
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.ethereum.endpoints import ChainUnavailable
from relayer.api.errors import TransactionNotFound
from relayer.api.rendering import render_reason
from relayer.chain.replies import DELIVERED
from relayer.chain.snapshot import read_market
from relayer.context import RelayerContext
from relayer.lifecycle.fees import Market
from relayer.store.models import Attempt, Message, Send, Signer
from relayer.store.states import FINAL, OPEN, UNMINED, Intent, SignerState, TransactionStatus


def explain(context: RelayerContext, message_id: str) -> shapes.Explanation:
    """Reasons, the weightiest first; the nodes' last replies to its newest bytes; and what gas costs now, at its urgency.

    Raises `TransactionNotFound`. Where no node answers, the market is null and the rest is answered all the same.
    """
    with transaction(context.sessions) as session:
        row = session.get(Message, message_id)
        if row is None:
            raise TransactionNotFound
        signer = session.get(Signer, (row.chain_id, row.from_address))
        own = (Attempt.chain_id == row.chain_id, Attempt.address == row.from_address, Attempt.nonce == row.nonce)
        newest = session.scalars(select(Attempt).where(*own).order_by(Attempt.number.desc()).limit(1)).one_or_none()
        ahead = 0 if row.nonce is None else _ahead(session, row, row.nonce)
        sends = session.scalars(
            select(Send)
            .where(Send.tx_hash == (newest.tx_hash if newest else ""))
            .ext(distinct_on(Send.endpoint))
            .order_by(Send.endpoint, Send.id.desc())
        ).all()
        waits = _turn(session, context, row) if row.status == TransactionStatus.QUEUED else None
    market = _market(context)
    if waits is not None and market is not None:
        waits = _lack(context, row, market, waits)
    reasons = _reasons(context, row, signer, newest, ahead, [send.reply for send in sends], market, waits)
    return shapes.Explanation(
        message_id=row.message_id,
        status=TransactionStatus(row.status),
        intent=Intent(row.intent),
        settled=row.status in FINAL,
        reasons=reasons,
        ahead_in_line=ahead,
        replies=[shapes.Reply(send.endpoint, send.reply, send.reply_text, send.started_at) for send in sends],
        market=None if market is None else _market_for(row, market),
    )


def _ahead(session: Session, row: Message, nonce: int) -> int:
    """Messages of the same signer that must be mined first."""
    query = select(func.count()).where(
        Message.chain_id == row.chain_id,
        Message.from_address == row.from_address,
        Message.status.in_(UNMINED),
        Message.nonce < nonce,
    )
    return int(session.scalar(query) or 0)


def _turn(session: Session, context: RelayerContext, row: Message) -> Reason:
    """What a queued message waits for where nothing was noted on it: room, or the ticks that consider those before it."""
    own = (Message.chain_id == row.chain_id, Message.from_address == row.from_address)
    in_flight = session.scalar(select(func.count()).where(*own, Message.status.in_(OPEN))) or 0
    queued = Message.status == TransactionStatus.QUEUED
    before = session.scalar(select(func.count()).where(*own, queued, Message.seq < row.seq)) or 0
    if in_flight >= context.settings.max_in_flight:
        return Reason(
            "no_room", f"{in_flight} of its sender are in flight, the most at once; it goes when one is final."
        )
    if before:
        detail = f"{before} were accepted before it; those that can go, go first. It is looked at within a few ticks."
        return Reason("queued", detail)
    return Reason("queued", "It will be signed at the next tick.")


def _lack(context: RelayerContext, row: Message, market: Market, otherwise: Reason) -> Reason:
    """The lack of funds, where the sender's balance less what its other messages will use does not suffice now; else
    `otherwise`, as also where no node answers."""
    with transaction(context.sessions) as session:
        cap = (
            select(func.max(Attempt.max_fee_per_gas_wei))
            .where(Attempt.chain_id == Message.chain_id, Attempt.address == Message.from_address)
            .where(Attempt.nonce == Message.nonce)
            .correlate(Message)
            .scalar_subquery()
        )
        promised = session.scalar(
            select(func.coalesce(func.sum(Message.value_wei + Message.gas_limit * func.coalesce(cap, 0)), 0)).where(
                Message.chain_id == row.chain_id,
                Message.from_address == row.from_address,
                Message.status.in_(UNMINED),
            )
        )
    try:
        found = context.endpoints.first(lambda endpoint: endpoint.call("eth_getBalance", [row.from_address, "latest"]))
    except ChainUnavailable:
        return otherwise
    cost = row.value_wei + row.gas_limit * market.fees_by(row.deadline).max_fee_wei
    missing = cost - (int(found, 16) - exact_int(promised))
    if missing <= 0:
        return otherwise
    return Reason("insufficient_funds", f"{row.from_address} lacks {missing} wei for value and gas.")


def _market(context: RelayerContext) -> Market | None:
    try:
        return context.endpoints.first(lambda endpoint: read_market(endpoint, context.settings.fallback_tip_wei))
    except ChainUnavailable:
        return None


def _market_for(row: Message, market: Market) -> shapes.Market:
    fees = market.fees_by(row.deadline if row.intent == Intent.NONE else None)
    return shapes.Market(market.base_fee_wei, fees.max_fee_wei, fees.tip_wei)


def _reasons(
    context: RelayerContext,
    row: Message,
    signer: Signer | None,
    newest: Attempt | None,
    ahead: int,
    replies: list[str | None],
    market: Market | None,
    waits: Reason | None,
) -> list[Reason]:
    if row.status in FINAL:
        return [Reason("final", f"It ended {row.status}."), *_own(row)]
    if row.status == TransactionStatus.MINED:
        wanted = "the finalized block" if context.settings.money_horizon == "finalized" else "the horizon"
        return [Reason("waits_for_horizon", f"Mined in block {row.block_number}; it is final once {wanted} passes it.")]
    found = _own(row)
    if waits is not None and row.reason and row.reason["code"] == "insufficient_funds":
        found = [waits]  # as it is now; what was noted may be long past
    if signer is None or signer.state != SignerState.ACTIVE:
        found.append(Reason("signer_not_active", f"The signer is {signer.state if signer else 'not known yet'}."))
    if newest is None:
        return found or [waits or Reason("queued", "It is looked at in one of the next ticks.")]
    if market is not None and newest.max_fee_per_gas_wei < market.base_fee_wei:
        found.append(Reason("below_base_fee", f"It pays {newest.max_fee_per_gas_wei} wei per gas, too little for now."))
    if ahead:
        found.append(Reason("behind_others", f"{ahead} lower nonces of its signer must be mined first."))
    if not any(reply in DELIVERED for reply in replies):
        found.append(Reason("not_delivered", "No node has confirmed that it holds its bytes; they are sent again."))
    return found or [Reason("waits_for_block", "Nodes hold it, and it pays enough: it waits for a block.")]


def _own(row: Message) -> list[Reason]:
    noted = render_reason(row)
    return [] if noted is None else [noted]
