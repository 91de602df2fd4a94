"""Which queued messages a tick considers, so that no line of one kind holds up another.

A tick cannot consider everything, and a message that it considers may have to wait: for funds, for a cap, for a node. So of
each sender it takes the oldest messages without value, which ask for gas alone and may be what brings the funds; the oldest
whose value the sender holds; and, where a line is longer than that, the next ones in turn, tick by tick. A message whose
value alone is more than the sender could pay is left out: it says so, and costs no tick anything more.
"""

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from apps.common.database import transaction
from relayer.context import RelayerContext
from relayer.store.messages import Queued
from relayer.store.models import Message, Signer
from relayer.store.states import SignerState, TransactionStatus

OLDEST = 100
MAX_SENDERS = 100


def senders(context: RelayerContext) -> dict[str, tuple[SignerState, int]]:
    """Senders of queued messages, with each key's state and next nonce; ``new`` where nothing is known of it."""
    chain_id = context.settings.chain_id
    with transaction(context.sessions) as session:
        waiting = session.scalars(
            select(Message.from_address)
            .where(Message.status == TransactionStatus.QUEUED, Message.chain_id == chain_id)
            .group_by(Message.from_address)
            .order_by(func.min(Message.seq))
            .limit(MAX_SENDERS)
        ).all()
        rows = session.execute(
            select(Signer.address, Signer.state, Signer.next_nonce).where(
                Signer.chain_id == chain_id, Signer.address.in_(waiting)
            )
        )
        known = {row.address: (SignerState(row.state), row.next_nonce) for row in rows}
    return {address: known.get(address, (SignerState.NEW, 0)) for address in waiting}


def oldest(context: RelayerContext, sender: str, code: str | None = None) -> list[Queued]:
    """The oldest queued messages of a sender; with a code, of those on which it is not noted yet as the reason to wait."""
    with transaction(context.sessions) as session:
        return _some(session, context, sender, *([] if code is None else [_not_noted(code)]), limit=2 * OLDEST)


def candidates(context: RelayerContext, sender: str, available_wei: int) -> list[Queued]:
    """What a tick may sign for a sender that can still promise so many wei, in order of acceptance."""
    held = Message.value_wei <= max(0, available_wei)
    with transaction(context.sessions) as session:
        free = _some(session, context, sender, Message.value_wei == 0)
        payable = _some(session, context, sender, Message.value_wei > 0, held)
        found = {row.message_id: row for row in (*free, *payable)}
        if max(len(free), len(payable)) == OLDEST:
            found |= {row.message_id: row for row in _in_turn(session, context, sender, held)}
    return sorted(found.values(), key=lambda row: row.seq)


def unpayable(context: RelayerContext, sender: str, available_wei: int) -> list[Queued]:
    """The oldest messages whose value alone is more than the sender can promise, and on which that is not noted yet."""
    above = Message.value_wei > max(0, available_wei)
    with transaction(context.sessions) as session:
        return _some(session, context, sender, above, _not_noted("insufficient_funds"))


def _in_turn(session: Session, context: RelayerContext, sender: str, held: ColumnElement[bool]) -> list[Queued]:
    """The next ones after those that the last tick considered; from the front again where there are no more."""
    turns: dict[str, int] = context.considered
    rows = _some(session, context, sender, held, Message.seq > turns.get(sender, 0))
    turns[sender] = rows[-1].seq if len(rows) == OLDEST else 0
    return rows


def _not_noted(code: str) -> ColumnElement[bool]:
    return func.coalesce(Message.reason["code"].astext, "") != code


def _some(
    session: Session, context: RelayerContext, sender: str, *which: ColumnElement[bool], limit: int = OLDEST
) -> list[Queued]:
    rows = session.execute(
        select(*Queued.columns())
        .where(Message.status == TransactionStatus.QUEUED, Message.chain_id == context.settings.chain_id)
        .where(Message.from_address == sender, *which)
        .order_by(Message.seq)
        .limit(limit)
    )
    return [Queued.of(row) for row in rows]
