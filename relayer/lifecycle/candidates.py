"""Which queued messages a tick looks at, so that no line of one kind stands before another.

A tick cannot look at everything, and what is looked at may have to wait: for funds, for a cap, for a node. So of each
sender it looks at the oldest messages without value, which ask for gas alone and may be what brings the funds; at the
oldest whose value the sender holds; and, where a line is longer than that, at the next ones in turn, tick by tick. What
the sender could not pay even if it had nothing else to do is not among them: it is told so and costs nothing more.
"""

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from apps.common.database import transaction
from relayer.context import RelayerContext
from relayer.signing.preflight import Queued
from relayer.store.models import Message, Signer

OLDEST = 100
MAX_SENDERS = 100


def senders(context: RelayerContext) -> dict[str, tuple[str, int]]:
    """Senders of queued messages, with each key's state and next nonce; ``new`` where nothing is known of it."""
    chain_id = context.settings.chain_id
    with transaction(context.sessions) as session:
        waiting = session.scalars(
            select(Message.from_address)
            .where(Message.status == "queued", Message.chain_id == chain_id)
            .group_by(Message.from_address)
            .order_by(func.min(Message.seq))
            .limit(MAX_SENDERS)
        ).all()
        rows = session.execute(
            select(Signer.address, Signer.state, Signer.next_nonce).where(
                Signer.chain_id == chain_id, Signer.address.in_(waiting)
            )
        )
        known = {row.address: (row.state, row.next_nonce) for row in rows}
    return {address: known.get(address, ("new", 0)) for address in waiting}


def oldest(context: RelayerContext, sender: str, code: str | None = None) -> list[Queued]:
    """The oldest queued messages of a sender; with a code, of those that do not say already that they wait for it."""
    with transaction(context.sessions) as session:
        return _some(session, context, sender, *([] if code is None else [_does_not_say(code)]), limit=2 * OLDEST)


def candidates(context: RelayerContext, sender: str, available_wei: int) -> list[Queued]:
    """What a tick may sign for a sender who can still promise so much, in order of acceptance."""
    held = Message.value_wei <= max(0, available_wei)
    with transaction(context.sessions) as session:
        free = _some(session, context, sender, Message.value_wei == 0)
        payable = _some(session, context, sender, Message.value_wei > 0, held)
        found = {row.message_id: row for row in (*free, *payable)}
        if max(len(free), len(payable)) == OLDEST:
            found |= {row.message_id: row for row in _in_turn(session, context, sender, held)}
    return sorted(found.values(), key=lambda row: row.seq)


def unpayable(context: RelayerContext, sender: str, available_wei: int) -> list[Queued]:
    """The oldest messages whose value alone is more than the sender can promise and that do not say so yet."""
    above = Message.value_wei > max(0, available_wei)
    with transaction(context.sessions) as session:
        return _some(session, context, sender, above, _does_not_say("insufficient_funds"))


def _in_turn(session: Session, context: RelayerContext, sender: str, held: ColumnElement[bool]) -> list[Queued]:
    """The next ones after those that the last tick looked at; from the front again where there are no more."""
    turns: dict[str, int] = context.looked_at
    rows = _some(session, context, sender, held, Message.seq > turns.get(sender, 0))
    turns[sender] = rows[-1].seq if len(rows) == OLDEST else 0
    return rows


def _does_not_say(code: str) -> ColumnElement[bool]:
    return func.coalesce(Message.reason["code"].astext, "") != code


def _some(
    session: Session, context: RelayerContext, sender: str, *which: ColumnElement[bool], limit: int = OLDEST
) -> list[Queued]:
    rows = session.execute(
        select(*Queued.columns())
        .where(Message.status == "queued", Message.chain_id == context.settings.chain_id)
        .where(Message.from_address == sender, *which)
        .order_by(Message.seq)
        .limit(limit)
    )
    return [Queued.of(row) for row in rows]
