"""Handing stored bytes to nodes, again and again until they are mined. Always the same bytes of the same nonce.

That a node was asked is written down before it is asked. Whatever the node answers, the message keeps its nonce: an
error does not mean that no node has the bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import aliased

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from relayer.context import RelayerContext
from relayer.events import record
from relayer.models import Attempt, Message, Send, Slot
from relayer.replies import DELIVERED, Reply, classify
from relayer.rpc import Endpoint, RpcError, Unanswered

log = structlog.get_logger(__name__)

# Once a block and node is enough for bytes a node took. Where blocks come only with transactions, time decides.
RESEND_TAKEN_SEC = 15
RESEND_REFUSED_SEC = 1
_LONG_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{80,}")


@dataclass(frozen=True, repr=False)
class _Due:
    message_id: str
    tx_hash: str
    raw: bytes


def send_due(context: RelayerContext, head: int) -> int:
    """Send the newest attempt of every slot signed and not mined, lowest nonces first; returns the calls made."""
    sent = 0
    for endpoint in context.endpoints.all:
        for due in _due(context, endpoint, head):
            reply = _send(context, endpoint, due, head)
            sent += 1
            if reply is Reply.NODE_NOT_READY or reply is None:
                break  # a node that does not answer gets one try a tick; the next tick asks it again
    return sent


def _due(context: RelayerContext, endpoint: Endpoint, head: int) -> Sequence[_Due]:
    sibling = aliased(Attempt)
    newest = (
        select(sibling.tx_hash)
        .where(sibling.chain_id == Slot.chain_id, sibling.address == Slot.address, sibling.nonce == Slot.nonce)
        .order_by(sibling.number.desc())
        .limit(1)
        .correlate(Slot)
        .scalar_subquery()
    )
    recently = (
        select(Send.id)
        .where(Send.tx_hash == Attempt.tx_hash, Send.endpoint == endpoint.number)
        .where(
            (
                (Send.head >= head)
                & Send.reply.in_([reply.value for reply in DELIVERED])
                & (Send.started_at > func.clock_timestamp() - text(f"interval '{RESEND_TAKEN_SEC} seconds'"))
            )
            | (Send.started_at > func.clock_timestamp() - text(f"interval '{RESEND_REFUSED_SEC} seconds'"))
            & Send.reply.is_not(None)
            & (Send.head >= head)
        )
        .exists()
    )
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(Message.message_id, Attempt.tx_hash, Attempt.raw)
            .join(Slot, Slot.message_id == Message.message_id)
            .join(Attempt, Attempt.tx_hash == newest)
            .where(
                Message.chain_id == context.settings.chain_id,
                Message.status.in_(("signed", "broadcast")),
                Slot.state == "open",
                ~recently,
            )
            .order_by(Slot.address, Slot.nonce)
        ).all()
    return [_Due(row.message_id, row.tx_hash, bytes(row.raw)) for row in rows]


def _send(context: RelayerContext, endpoint: Endpoint, due: _Due, head: int) -> Reply | None:
    """Send once; None when the node did not answer."""
    with transaction(context.sessions) as session:
        evidence = Send(tx_hash=due.tx_hash, endpoint=endpoint.number, head=head)
        session.add(evidence)
        session.flush()
        send_id = evidence.id
    crashpoint("relayer.sending")
    answered: Reply | None
    try:
        found = endpoint.call("eth_sendRawTransaction", ["0x" + due.raw.hex()])
        # Some nodes answer with another hash under load; ours is computed from the bytes.
        answered = reply = Reply.ACCEPTED if str(found).lower() == due.tx_hash.lower() else Reply.AMBIGUOUS
        said = "" if reply is Reply.ACCEPTED else "the node answered another hash"
    except RpcError as error:
        answered = reply = classify(error.message)
        said = _LONG_HEX.sub("[hex]", error.message)[:300]
    except Unanswered as error:
        answered, reply, said = None, Reply.AMBIGUOUS, str(error)[:300]
    crashpoint("relayer.delivered")
    _record(context, due, send_id, reply, said)
    if reply not in DELIVERED:
        log.warning("send_refused", message_id=due.message_id, endpoint=endpoint.number, reply=reply.value, text=said)
    return answered


def _record(context: RelayerContext, due: _Due, send_id: int, reply: Reply, said: str) -> None:
    with transaction(context.sessions) as session:
        session.execute(
            update(Send)
            .where(Send.id == send_id)
            .values(reply=reply.value, reply_text=said, finished_at=func.clock_timestamp())
        )
        row = session.scalars(
            select(Message).where(Message.message_id == due.message_id, Message.status == "signed").with_for_update()
        ).one_or_none()
        if row is None:
            return
        if reply in DELIVERED:
            row.status = "broadcast"
            row.reason = None
            row.updated_at = func.clock_timestamp()
            record(session, due.message_id, "broadcast", {"tx_hash": due.tx_hash, "reply": reply.value})
        else:
            row.reason = {"code": f"node_{reply.value}", "detail": said}
