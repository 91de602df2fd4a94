"""What callers and operators ask for: to accept a message, to take it back, to hurry it, to stop or release a key.

Nothing here signs or sends. A wish is written down, and the pump, in another process, follows it.
"""

import json
from collections.abc import Callable, Mapping

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from apps.clients.shapes.relayer import NewTransaction, Signer, Transaction
from apps.common.crashpoint import crashpoint
from apps.common.database import run_statement, transaction
from apps.common.errors import InvalidInput
from apps.common.idempotency import differing_fields, raise_reused
from apps.common.wire import format_time
from relayer.api.errors import (
    AlreadyFinal,
    BeingReplaced,
    NotSigned,
    SignerDoubted,
    SignerNotFound,
    SignerQuarantined,
)
from relayer.api.reads import RelayerReads, existing
from relayer.api.rendering import render, render_messages
from relayer.chain.doubts import doubted, nonce_of
from relayer.context import RelayerContext
from relayer.lifecycle.external import end_done_externally
from relayer.lifecycle.release import release
from relayer.store import models
from relayer.store.events import Event, first_digest, record
from relayer.store.models import Message
from relayer.store.states import FINAL, OPEN, Intent, SignerState, TransactionStatus

CANCEL_ASKED = {
    "code": "cancel_requested",
    "detail": "An empty transaction races it for its nonce; whichever is mined decides.",
}

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
        self.reads = RelayerReads(context)
        self._writer = writer
        self._wake = wake

    def accept(self, new: NewTransaction) -> tuple[Transaction, bool]:
        """Store a message, once per message_id; returns it as it stands, and whether it was known before.

        Raises `MessageIdReused` where the id was used with another body. What depends on settings (signer, gas limit)
        is compared as it was given, so that a changed default does not turn a replay into a reuse.
        """
        request = _canonical(new)
        settings = self.context.settings
        message = Message(
            message_id=new.message_id,
            purpose=new.purpose,
            status=TransactionStatus.QUEUED,
            chain_id=settings.chain_id,
            from_address=new.sender or self._default_sender(),
            to_address=new.to,
            data=bytes.fromhex(new.data[2:]),
            value_wei=new.value_wei,
            gas_limit=new.gas_limit or settings.gas_limit,
            deadline=new.deadline,
        )
        values = {
            "message_id": message.message_id,
            "request": json.dumps(request),
            "purpose": message.purpose,
            "status": message.status,
            "chain_id": message.chain_id,
            "from_address": message.from_address,
            "to_address": message.to_address,
            "data": message.data,
            "value_wei": message.value_wei,
            "gas_limit": message.gas_limit,
            "deadline": message.deadline,
            "digest": first_digest(Event(new.message_id, "accepted", request)),
        }
        crashpoint("relayer.accepting")
        stored = run_statement(self._writer, _ACCEPT, values)
        if stored is None:
            return self._known(new.message_id, request), True
        crashpoint("relayer.accepted")
        self._wake()
        message.created_at, message.updated_at = stored
        return render(message, []), False

    def cancel(self, message_id: str) -> tuple[Transaction, bool]:
        """Take a message back; returns it, and whether that is decided already.

        A queued one is cancelled at once. A signed one may be mined at any time, so an empty transaction is sent in its
        place, and the one that is mined decides. Cancelling twice is one cancelling. Raises `TransactionNotFound`,
        `AlreadyFinal`, or `SignerQuarantined` or `SignerDoubted` for a queued one: what another sender did with its key
        may have executed it, and that is not known yet.
        """
        end_done_externally(self.context)
        with transaction(self.context.sessions) as session:
            row = existing(session, message_id, lock=True)
            if row.status in FINAL and row.status != TransactionStatus.CANCELLED:
                raise AlreadyFinal(f"The message has ended {row.status}, and an end is final.")
            if row.status == TransactionStatus.QUEUED:
                signer = session.get(models.Signer, (row.chain_id, row.from_address))
                if signer is not None and signer.state == SignerState.QUARANTINED:
                    raise SignerQuarantined
                if doubted(session, [nonce_of(row.chain_id, row.from_address)]):
                    raise SignerDoubted
                row.status = TransactionStatus.CANCELLED
                row.reason = {"code": "cancelled_by_caller", "detail": "Taken back before it was signed."}
                row.updated_at = func.clock_timestamp()
                session.flush()
                record(session, message_id, "cancelled")
            elif row.status in OPEN and row.intent == Intent.NONE:
                row.intent, row.reason = Intent.CANCEL, CANCEL_ASKED
                row.updated_at = func.clock_timestamp()
                session.flush()
                record(session, message_id, "cancel_requested")
            message = _rendered(session, row)
        self._wake()
        return message, message.status == TransactionStatus.CANCELLED

    def speed_up(self, message_id: str) -> Transaction:
        """Have the price raised at the next tick, within the caps.

        Raises `TransactionNotFound`, `NotSigned`, `BeingReplaced` or `AlreadyFinal`. Asking twice before it is done is one
        raise.
        """
        with transaction(self.context.sessions) as session:
            row = existing(session, message_id, lock=True)
            if row.status in FINAL:
                raise AlreadyFinal(f"The message has ended {row.status}, and an end is final.")
            if row.status == TransactionStatus.QUEUED:
                raise NotSigned
            if row.intent != Intent.NONE:
                raise BeingReplaced
            if not row.raise_asked and row.status != TransactionStatus.MINED:
                row.raise_asked = True
                row.updated_at = func.clock_timestamp()
                session.flush()
                record(session, message_id, "speed_up_requested")
            message = _rendered(session, row)
        self._wake()
        return message

    def set_signer_state(self, address: str, state: SignerState) -> Signer:
        """To ``active``, ``draining`` or ``paused``; raises `SignerNotFound` or `SignerQuarantined`."""
        chain_id = self.context.settings.chain_id
        with transaction(self.context.sessions) as session:
            row = session.scalars(
                select(models.Signer)
                .where(models.Signer.chain_id == chain_id, func.lower(models.Signer.address) == address.lower())
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise SignerNotFound
            if row.state == SignerState.QUARANTINED:
                raise SignerQuarantined
            row.state = state
            row.updated_at = func.clock_timestamp()
            known = row.address
        self._wake()
        return self.reads.signer(known)

    def release_signer(self, address: str) -> Signer:
        """Lift a quarantine, see `relayer.lifecycle.release.release`; the key is left paused."""
        known = release(self.context, address)
        self._wake()
        return self.reads.signer(known)

    def _known(self, message_id: str, request: Mapping[str, str | None]) -> Transaction:
        with transaction(self.context.sessions) as session:
            row = existing(session, message_id)
            fields = differing_fields(request, row.request)
            if fields:
                raise_reused(fields)
            return render_messages(session, [row])[0]

    def _default_sender(self) -> str:
        """The operator where its key is held, else the first key."""
        settings = self.context.settings
        operator = settings.operator_address
        for address in settings.keyring.addresses:
            if operator and address.lower() == operator.lower():
                return address
        return settings.keyring.addresses[0]


def _rendered(session: Session, row: Message) -> Transaction:
    session.flush()
    session.refresh(row)
    return render_messages(session, [row])[0]


def _canonical(new: NewTransaction) -> dict[str, str | None]:
    """The body as it is stored and compared: one text for each value, whatever its letters were."""
    if int(new.to, 16) == 0:
        raise InvalidInput(errors={"to": ["The zero address is nobody's."]})
    return {
        "to": new.to,
        "data": new.data,
        "value_wei": str(new.value_wei),
        "gas_limit": None if new.gas_limit is None else str(new.gas_limit),
        "deadline": format_time(new.deadline),
        "from": new.sender,
        "purpose": new.purpose,
    }
