"""One tick: look at the chain, settle what is settled, sign what is due, send what is not mined.

Ticks run one at a time where they can, for less work; two at once are harmless, as every write checks its row under
lock. A tick that dies anywhere is finished by the next one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.common.ethereum import ChainUnavailable
from relayer.assign import assign
from relayer.chain import Look, OpenMessage, look_at_chain
from relayer.context import RelayerContext
from relayer.models import OPEN, Attempt, Message, Signer
from relayer.send import send_due
from relayer.settle import quarantine, settle

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Tick:
    """What a tick did."""

    ran: bool
    ended: int = 0
    signed: int = 0
    sent: int = 0


def pump_once(context: RelayerContext, *, wake_pool: Callable[[], None] = lambda: None) -> Tick:
    """Do one tick; `wake_pool` is called, after the commit, when a message ended. Without a chain it does nothing."""
    with _alone(context) as alone:
        if not alone:
            return Tick(ran=False)
        messages = _open_messages(context)
        try:
            look = look_at_chain(context, messages)
        except ChainUnavailable:
            log.warning("no_look_at_chain")
            return Tick(ran=True)
        ended = settle(context, look, messages)
        _check_signers(context, look)
        signed, refused = assign(context, look, messages)
        if ended + refused:
            wake_pool()
        sent = send_due(context, look.head)
    return Tick(ran=True, ended=ended + refused, signed=signed, sent=sent)


@contextmanager
def _alone(context: RelayerContext) -> Iterator[bool]:
    """Hold a session-level advisory lock, with no transaction open; a process that dies lets it go at once."""
    with context.sessions() as session:
        engine = session.get_bind()
    if not isinstance(engine, Engine):
        raise TypeError("the session is bound to no engine")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        held = bool(connection.execute(text("SELECT pg_try_advisory_lock(hashtext('relayer_pump'))")).scalar())
        try:
            yield held
        finally:
            if held:
                connection.execute(text("SELECT pg_advisory_unlock(hashtext('relayer_pump'))"))


def _open_messages(context: RelayerContext) -> list[OpenMessage]:
    with transaction(context.sessions) as session:
        rows = session.scalars(
            select(Message)
            .where(Message.status.in_(OPEN), Message.chain_id == context.settings.chain_id)
            .order_by(Message.seq)
        ).all()
        attempts = _attempts(session, rows)
    opened = []
    for row in rows:
        nonce = row.nonce if row.nonce is not None else -1  # a signed message has one: a constraint says so
        own = attempts[(row.from_address, nonce)]
        opened.append(
            OpenMessage(
                message_id=row.message_id,
                seq=row.seq,
                address=row.from_address,
                nonce=nonce,
                status=row.status,
                to=row.to_address,
                data=bytes(row.data),
                value_wei=row.value_wei,
                gas_limit=row.gas_limit,
                max_fee_wei=max(fee for _, fee in own),
                block_hash=row.block_hash,
                observed_block=row.observed_block or 0,
                attempts=tuple(tx_hash for tx_hash, _ in own),
            )
        )
    return opened


def _attempts(session: Session, rows: Sequence[Message]) -> dict[tuple[str, int], list[tuple[str, int]]]:
    found: dict[tuple[str, int], list[tuple[str, int]]] = {}
    if not rows:
        return found
    query = (
        select(Attempt.address, Attempt.nonce, Attempt.tx_hash, Attempt.max_fee_per_gas_wei)
        .join(Message, (Message.from_address == Attempt.address) & (Message.nonce == Attempt.nonce))
        .where(Message.message_id.in_([row.message_id for row in rows]), Attempt.chain_id == Message.chain_id)
        .order_by(Attempt.number)
    )
    for address, nonce, tx_hash, fee in session.execute(query):
        found.setdefault((address, nonce), []).append((tx_hash, fee))
    return found


def _check_signers(context: RelayerContext, look: Look) -> None:
    """Begin with a new key where nothing of it is pending, and stop with a key that somebody else has used.

    The database's nonce is read after the chain's and never falls, so a chain ahead of it means another user of the
    key, or a database restored from an old backup.
    """
    chain_id = context.settings.chain_id
    with transaction(context.sessions) as session:
        known = {
            row.address: row
            for row in session.scalars(select(Signer).where(Signer.chain_id == chain_id).order_by(Signer.address))
        }
        for address, view in look.signers.items():
            row = known.get(address)
            if row is None and view.latest == view.pending:
                values = {"chain_id": chain_id, "address": address, "next_nonce": view.latest, "state": "active"}
                session.execute(insert(Signer).values(**values).on_conflict_do_nothing())
            elif row is not None and row.state != "quarantined" and max(view.latest, view.pending) > row.next_nonce:
                quarantine(session, chain_id, address)
                counts = {"latest": view.latest, "pending": view.pending, "ours": row.next_nonce}
                log.error("signer_quarantined", address=address, **counts)
