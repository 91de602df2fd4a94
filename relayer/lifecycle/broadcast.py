"""Sending stored bytes to nodes, again and again until they are mined: always the same bytes of the same nonce.

That a node is given the bytes is written down before it is done. Whatever the node answers, the message keeps its nonce: an
error does not mean that no node has the bytes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import structlog
from sqlalchemy import Select, and_, bindparam, case, false, func, or_, select, text, true
from sqlalchemy.orm import aliased

from apps.common.crashpoint import crashpoint
from apps.common.database import one_of, transaction
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered
from apps.ethereum.sanitize import readable
from relayer.chain.replies import DELIVERED, Reply, classify
from relayer.chain.snapshot import ChainSnapshot
from relayer.context import RelayerContext
from relayer.store.events import Event, record_all
from relayer.store.models import Attempt, Message, NonceRow, Send, Signer
from relayer.store.states import FINAL, UNMINED, Intent, NonceState, SignerState, TransactionStatus

log = structlog.get_logger(__name__)

BATCH = 100
# A node that took bytes is given them again once a block, or after this time where no block comes, as it may have dropped
# them. Only the lowest nonces of a signer: those behind them cannot be mined yet.
FIRST_IN_LINE = 16
RESEND_TAKEN_SEC = 15
RESEND_AGAIN_SEC = 1
_LONG_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{80,}")


@dataclass(frozen=True, repr=False)
class _Due:
    message_id: str
    final: bool
    tx_hash: str
    raw: bytes
    last_reply: str | None


def send_due(context: RelayerContext, snapshot: ChainSnapshot) -> int:
    """Send the newest attempt of every message that has a nonce and is not mined, lowest nonces first; returns how many sends
    were made."""
    sent = 0
    for endpoint in context.endpoints.awake():
        due = _due(context, snapshot, endpoint)
        for start in range(0, len(due), BATCH):
            chunk = due[start : start + BATCH]
            sent += len(chunk)
            if not _send(context, endpoint, chunk, snapshot.head):
                break  # a node that does not answer gets one try a tick; the next tick asks it again
    return sent


def _due(context: RelayerContext, snapshot: ChainSnapshot, endpoint: Endpoint) -> Sequence[_Due]:
    query = _due_query(its_pool_is_known=endpoint is snapshot.endpoint)
    same = {"chain_id": context.settings.chain_id, "endpoint": endpoint.number, "head": snapshot.head}
    with transaction(context.sessions) as session:
        rows = [
            row
            for address, view in snapshot.signers.items()
            for row in session.execute(
                query,
                {
                    **same,
                    "address": address,
                    "latest": view.latest,
                    "behind": view.latest + FIRST_IN_LINE,
                    "pending": view.pending,
                },
            )
        ]
    return [_Due(row.message_id, row.status in FINAL, row.tx_hash, bytes(row.raw), row.last_reply) for row in rows]


@cache
def _due_query(*, its_pool_is_known: bool) -> Select[tuple[str, str, str, bytes, str | None]]:
    """What an endpoint is to be given now: of `address`, whose nonces below `latest` are mined and below `pending` in the
    endpoint's pool, where that is known; nonces from `behind` on are not first in line.

    Of a message that is not mined the newest attempt. Of a message that has ended, but whose nonce the chain has lost again
    in a reorg deeper than the horizon, the very bytes that settled it: so the outcome that was reported becomes true again,
    and the nonces behind it can be mined.
    """
    newest, last = aliased(Attempt), aliased(Send)
    newest_hash = (
        select(newest.tx_hash)
        .where(newest.chain_id == NonceRow.chain_id, newest.address == NonceRow.address, newest.nonce == NonceRow.nonce)
        .order_by(newest.number.desc())
        .limit(1)
        .correlate(NonceRow)
        .scalar_subquery()
    )
    previous = (
        select(last.reply, last.head, last.started_at)
        .where(last.tx_hash == Attempt.tx_hash, last.endpoint == bindparam("endpoint"))
        .order_by(last.id.desc())
        .limit(1)
        .correlate(Attempt)
        .lateral("previous")
    )
    # Without sign: a send that lies in the future was noted before the database's clock stepped back.
    ago = func.greatest(func.clock_timestamp() - previous.c.started_at, previous.c.started_at - func.clock_timestamp())
    taken = previous.c.reply.in_([reply.value for reply in DELIVERED])
    older = or_(previous.c.head < bindparam("head"), ago > text(f"interval '{RESEND_TAKEN_SEC} seconds'"))
    # The endpoint's own `pending` count tells which nonces its pool does not hold. To send again costs little if it is wrong.
    dropped = NonceRow.nonce >= bindparam("pending") if its_pool_is_known else false()
    not_held = or_(func.coalesce(taken, False).is_(False), dropped)
    due = or_(
        previous.c.started_at.is_(None),
        and_(not_held, ago > text(f"interval '{RESEND_AGAIN_SEC} seconds'")),
        and_(older, NonceRow.nonce < bindparam("behind")),
    )
    return (
        select(Message.message_id, Message.status, Attempt.tx_hash, Attempt.raw, previous.c.reply.label("last_reply"))
        .select_from(Message)
        .join(NonceRow, NonceRow.message_id == Message.message_id)
        .join(Signer, and_(Signer.chain_id == NonceRow.chain_id, Signer.address == NonceRow.address))
        .join(
            Attempt,
            Attempt.tx_hash == case((NonceRow.state == NonceState.SETTLED, NonceRow.settled_by), else_=newest_hash),
        )
        .join(previous, true(), isouter=True)
        .where(
            NonceRow.chain_id == bindparam("chain_id"),
            NonceRow.address == bindparam("address"),
            NonceRow.nonce >= bindparam("latest"),
        )
        .where(
            or_(NonceRow.state == NonceState.SETTLED, Message.status.in_(UNMINED)),
            Signer.state != SignerState.PAUSED,
            due,
        )
        .order_by(NonceRow.nonce)
    )


def _send(context: RelayerContext, endpoint: Endpoint, due: Sequence[_Due], head: int) -> bool:
    """Send a batch once; False when the node did not answer, or is not ready to take transactions."""
    values = {"hashes": [one.tx_hash for one in due], "endpoint": endpoint.number, "head": head}
    with transaction(context.sessions) as session:
        numbers = {row.tx_hash: row.id for row in session.execute(_BEGIN, values)}
    crashpoint("relayer.sending")
    answered = True
    try:
        results = endpoint.batch([("eth_sendRawTransaction", ["0x" + one.raw.hex()]) for one in due])
        replies = [_reply(one, result) for one, result in zip(due, results, strict=True)]
        endpoint_is_ready = any(reply is not Reply.NODE_NOT_READY for reply, _ in replies)
        context.endpoints.answered(endpoint)
    except Unanswered as error:
        answered = endpoint_is_ready = False
        replies = [(Reply.AMBIGUOUS, readable(str(error), 300))] * len(due)
        context.endpoints.failed(endpoint)
    crashpoint("relayer.delivered")
    _record(context, endpoint, due, numbers, replies)
    crashpoint("relayer.sent")
    return answered and endpoint_is_ready


def _reply(due: _Due, result: object) -> tuple[Reply, str]:
    if isinstance(result, RpcError):
        return classify(result.message), readable(_LONG_HEX.sub("[hex]", result.message), 300)
    if str(result).lower() == due.tx_hash.lower():
        return Reply.ACCEPTED, ""
    # Some nodes answer with another hash under load; the stored hash is computed from the bytes.
    return Reply.AMBIGUOUS, "the node answered another hash"


_BEGIN = text(
    """
    INSERT INTO sends (tx_hash, endpoint, head) SELECT hash, :endpoint, :head FROM unnest(CAST(:hashes AS text[])) hash
    RETURNING id, tx_hash
    """
)
_COMPLETE = text(
    """
    UPDATE sends SET reply = new.reply, reply_text = new.reply_text, finished_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new(id bigint, reply text, reply_text text)
    WHERE sends.id = new.id
    """
)
_CHANGE = text(
    """
    UPDATE messages SET status = new.status, reason = new.reason,
        updated_at = CASE WHEN messages.status = new.status THEN messages.updated_at ELSE clock_timestamp() END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new(message_id text, status text, reason jsonb)
    WHERE messages.message_id = new.message_id
    """
)


def _record(
    context: RelayerContext,
    endpoint: Endpoint,
    due: Sequence[_Due],
    numbers: Mapping[str, int],
    replies: Sequence[tuple[Reply, str]],
) -> None:
    """Complete the evidence, and move to `broadcast` what a node took. A reply goes into a message's history only when it
    differs from the last one, so that the history of a message that is sent again for hours stays readable."""
    reply_of = {one.message_id: (one, reply, answer) for one, (reply, answer) in zip(due, replies, strict=True)}
    evidence = [
        {"id": numbers[one.tx_hash], "reply": reply.value, "reply_text": answer}
        for one, reply, answer in reply_of.values()
    ]
    with transaction(context.sessions) as session:
        session.execute(_COMPLETE, {"rows": json.dumps(evidence)})
        rows = session.execute(
            select(Message.message_id, Message.status, Message.intent, Message.reason)
            .where(one_of(Message.message_id, list(reply_of)))
            .order_by(Message.seq)
            .with_for_update()
        ).all()
        events, changes = [], []
        for row in rows:
            one, reply, answer = reply_of[row.message_id]
            body = {"tx_hash": one.tx_hash, "endpoint": endpoint.number, "reply": reply.value, "text": answer}
            if one.final:
                log.error("settled_message_left_the_chain", message_id=row.message_id)
                if reply in DELIVERED or one.last_reply != reply.value:
                    events.append(Event(row.message_id, "sent_again_after_deep_reorg", body))
                continue
            if row.status == TransactionStatus.SIGNED and reply in DELIVERED:
                reason = row.reason if row.intent != Intent.NONE else None
                changes.append({"message_id": row.message_id, "status": TransactionStatus.BROADCAST, "reason": reason})
                events.append(Event(row.message_id, "broadcast", body))
            elif one.last_reply != reply.value:
                events.append(Event(row.message_id, "reply", body))
            if reply not in DELIVERED and row.status == TransactionStatus.SIGNED and row.intent == Intent.NONE:
                reason = {"code": f"node_{reply.value}", "detail": answer}
                changes.append({"message_id": row.message_id, "status": row.status, "reason": reason})
                log.warning("send_refused", message_id=row.message_id, endpoint=endpoint.number, reply=reply.value)
        if changes:
            session.execute(_CHANGE, {"rows": json.dumps(changes)})
        record_all(session, events)
