"""Accepting and reading messages. Signing and sending are the pump's, in another process."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import run_statement, transaction
from apps.common.errors import InvalidInput
from apps.common.idempotency import differing_fields, raise_reused
from apps.common.wire import format_time, integer_cursor, page
from relayer.api.errors import TransactionNotFound
from relayer.api.rendering import render, render_event, render_messages, render_send
from relayer.context import RelayerContext
from relayer.store.events import Event, first_digest
from relayer.store.models import FINAL, Attempt, Message, MessageEvent, Send

# A waiting call holds one of the web server's threads; the others must stay free for calls that do something.
MAX_WAITERS = 4
POLL_SEC = 0.2


# A message and the beginning of its history, in one round trip; no row where the message_id is known already.
_ACCEPT = """
WITH accepted AS (
    INSERT INTO messages (message_id, request, purpose, status, chain_id, from_address, to_address, data, value_wei,
        gas_limit, deadline)
    VALUES (%(message_id)s, %(request)s, %(purpose)s, %(status)s, %(chain_id)s, %(from_address)s, %(to_address)s,
        %(data)s, %(value_wei)s, %(gas_limit)s, %(deadline)s)
    ON CONFLICT (message_id) DO NOTHING
    RETURNING message_id, request, created_at, updated_at
), noted AS (
    INSERT INTO message_events (message_id, number, type, body, previous_digest, digest)
    SELECT message_id, 1, 'accepted', request, '', %(digest)s FROM accepted
)
SELECT created_at, updated_at FROM accepted
"""


class RelayerService:
    """`writer` is in autocommit: accepting a message is one statement."""

    def __init__(self, context: RelayerContext, writer: Engine, wake: Callable[[], None]) -> None:
        self.context = context
        self._writer = writer
        self._wake = wake
        self._waiters = threading.BoundedSemaphore(MAX_WAITERS)

    def accept(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Store a message, once per message_id; returns it as it stands, and whether it was known before.

        Raises `MessageIdReused` where the id was used with another body. What depends on settings (signer, gas limit)
        is compared as it was given, so that a changed default does not turn a replay into a reuse.
        """
        request = _canonical(body)
        settings = self.context.settings
        values = {
            "message_id": body["message_id"],
            "purpose": body["purpose"],
            "status": "queued",
            "chain_id": settings.chain_id,
            "from_address": body["sender"] or self._default_sender(),
            "to_address": body["to"],
            "data": bytes.fromhex(body["data"][2:]),
            "value_wei": body["value_wei"],
            "gas_limit": body["gas_limit"] or settings.gas_limit,
            "deadline": body["deadline"],
        }
        first = first_digest(Event(body["message_id"], "accepted", request))
        crashpoint("relayer.accepting")
        stored = run_statement(self._writer, _ACCEPT, {**values, "request": json.dumps(request), "digest": first})
        if stored is None:
            return self._known(body["message_id"], request), True
        crashpoint("relayer.accepted")
        self._wake()
        created_at, updated_at = stored
        return render(Message(**values, created_at=created_at, updated_at=updated_at), []), False

    def read(self, message_id: str, wait_sec: float = 0.0) -> dict[str, Any]:
        """A message as it stands; with `wait_sec`, once its status changes or is final, or the time is over.

        No connection is held while waiting. When too many callers wait already, the answer comes at once.
        """
        found = self._read(message_id)
        if wait_sec <= 0 or found["status"] in FINAL or not self._waiters.acquire(blocking=False):
            return found
        try:
            before, give_up = found["status"], time.monotonic() + wait_sec
            while found["status"] == before and time.monotonic() < give_up:
                time.sleep(min(POLL_SEC, max(0.0, give_up - time.monotonic())))
                found = self._read(message_id)
            return found
        finally:
            self._waiters.release()

    def listing(
        self,
        *,
        status: list[str] | None,
        from_block: int | None,
        to_block: int | None,
        limit: int,
        after: str | None,
    ) -> dict[str, Any]:
        """Messages in the order of acceptance."""
        query = select(Message).where(Message.seq > integer_cursor(after)).order_by(Message.seq).limit(limit + 1)
        if status is not None:
            query = query.where(Message.status.in_(status))
        if from_block is not None:
            query = query.where(Message.block_number >= from_block)
        if to_block is not None:
            query = query.where(Message.block_number <= to_block)
        with transaction(self.context.sessions) as session:
            rows = session.scalars(query).all()
            rendered = render_messages(session, rows)
        numbers = {row.message_id: row.seq for row in rows}
        return page(rendered, limit, lambda item: str(numbers[item["message_id"]]))

    def events(self, message_id: str, limit: int, after: str | None) -> dict[str, Any]:
        """The history of a message: each decision, and each reply of a node that differs from its last."""
        query = (
            select(MessageEvent)
            .where(MessageEvent.message_id == message_id, MessageEvent.number > integer_cursor(after))
            .order_by(MessageEvent.number)
            .limit(limit + 1)
        )
        with transaction(self.context.sessions) as session:
            _message(session, message_id)
            rows = session.scalars(query).all()
        return page([render_event(row) for row in rows], limit, lambda item: str(item["number"]))

    def sends(self, message_id: str, limit: int, after: str | None) -> dict[str, Any]:
        """Each handing-over of a message's bytes to a node, and what the node said: the evidence, nothing left out."""
        with transaction(self.context.sessions) as session:
            row = _message(session, message_id)
            query = (
                select(Send)
                .join(Attempt, Attempt.tx_hash == Send.tx_hash)
                .where(Attempt.chain_id == row.chain_id, Attempt.address == row.from_address)
                .where(Attempt.nonce == row.nonce, Send.id > integer_cursor(after))
                .order_by(Send.id)
                .limit(limit + 1)
            )
            sends = session.scalars(query).all()
        return page([render_send(send) for send in sends], limit, lambda item: str(item["id"]))

    def _known(self, message_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = _message(session, message_id)
            fields = differing_fields(request, row.request)
            if fields:
                raise_reused(fields)
            return render_messages(session, [row])[0]

    def _read(self, message_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = _message(session, message_id)
            return render_messages(session, [row])[0]

    def _default_sender(self) -> str:
        """The operator where its key is held, else the first key."""
        settings = self.context.settings
        operator = settings.operator_address
        for address in settings.keyring.addresses:
            if operator and address.lower() == operator.lower():
                return address
        return settings.keyring.addresses[0]


def _message(session: Session, message_id: str) -> Message:
    row = session.get(Message, message_id)
    if row is None:
        raise TransactionNotFound
    return row


def _canonical(body: Mapping[str, Any]) -> dict[str, Any]:
    sender = body["sender"]
    if int(body["to"], 16) == 0:
        raise InvalidInput(errors={"to": ["The zero address is nobody's."]})
    return {
        "to": body["to"],
        "data": body["data"],
        "value_wei": str(body["value_wei"]),
        "gas_limit": None if body["gas_limit"] is None else str(body["gas_limit"]),
        "deadline": format_time(body["deadline"]),
        "from": sender,
        "purpose": body["purpose"],
    }
