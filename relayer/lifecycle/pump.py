"""One tick: look at the chain, settle what is settled, sign what is due, send what is not mined.

Ticks run one at a time where they can, for less work; two at once are harmless, as every write checks its row under
lock. A tick that dies anywhere is finished by the next one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.exc import OperationalError

from apps.common.database import transaction
from apps.ethereum.endpoints import ChainUnavailable
from relayer.chain.doubts import STRONG_AFTER, WEAK_AFTER, doubted, drop, nonce_of, not_seen, seen_again
from relayer.chain.evidence import nonces_elsewhere
from relayer.chain.snapshot import Look, OpenMessage, look_at_chain
from relayer.context import RelayerContext
from relayer.lifecycle.broadcast import send_due
from relayer.lifecycle.finalize import quarantine, settle
from relayer.lifecycle.replace import replace_due
from relayer.lifecycle.sign_queued import assign
from relayer.store.models import Attempt, Message, Signer
from relayer.store.states import OPEN

log = structlog.get_logger(__name__)

# A tick that is stopped in its tracks for this long, process frozen or machine gone, no longer keeps others out.
FROZEN_AFTER_SEC = 15


@dataclass(frozen=True)
class Tick:
    """What a tick did. `head`: the block it saw, or None when it saw no chain."""

    ran: bool
    head: int | None = None
    ended: int = 0
    signed: int = 0
    replaced: int = 0
    sent: int = 0


def pump_once(context: RelayerContext, *, on_ended: Callable[[list[str]], None] = lambda _ids: None) -> Tick:
    """Do one tick; `on_ended` gets the ids of messages that ended, after the commit. Without a chain it does nothing."""
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
        if ended:
            on_ended(ended)
        _check_signers(context, look)
        signed, refused = assign(context, look, messages)
        if refused:
            on_ended(refused)
        replaced = replace_due(context, look)
        sent = send_due(context, look)
    return Tick(True, look.head, len(ended) + len(refused), signed, replaced, sent)


@contextmanager
def _alone(context: RelayerContext) -> Iterator[bool]:
    """Hold a session-level advisory lock, with no transaction open; a process that dies lets it go at once.

    A process that is frozen does not: so the server ends this session once it was idle for longer than a tick takes.
    """
    with context.sessions() as session:
        engine = session.get_bind()
    if not isinstance(engine, Engine):
        raise TypeError("the session is bound to no engine")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"SET idle_session_timeout = '{FROZEN_AFTER_SEC}s'"))
        held = bool(connection.execute(text("SELECT pg_try_advisory_lock(hashtext('relayer_pump'))")).scalar())
        try:
            yield held
        finally:
            try:
                connection.execute(text("SELECT pg_advisory_unlock_all()"))
                connection.execute(text("RESET idle_session_timeout"))
            except OperationalError:  # the server ended the session: the lock is gone with it
                connection.invalidate()
                log.warning("tick_outlived_its_lock")


def _open_messages(context: RelayerContext) -> list[OpenMessage]:
    attempts = (Attempt.chain_id == Message.chain_id) & (Attempt.address == Message.from_address)
    query = (
        select(
            Message.message_id, Message.seq, Message.from_address, Message.nonce, Message.status, Message.to_address,
            Message.data, Message.value_wei, Message.gas_limit, Message.block_number, Message.block_hash,
            Message.observed_block,
            func.max(Attempt.max_fee_per_gas_wei).label("max_fee_wei"),
            func.array_agg(aggregate_order_by(Attempt.tx_hash, Attempt.number)).label("attempts"),
        )
        .join(Attempt, attempts & (Attempt.nonce == Message.nonce))
        .where(Message.status.in_(OPEN), Message.chain_id == context.settings.chain_id)
        .group_by(Message.message_id)
        .order_by(Message.seq)
    )  # fmt: skip
    with transaction(context.sessions) as session:
        rows = session.execute(query).all()
    return [
        OpenMessage(
            message_id=row.message_id,
            seq=row.seq,
            address=row.from_address,
            nonce=row.nonce,
            status=row.status,
            to=row.to_address,
            data=bytes(row.data),
            value_wei=row.value_wei,
            gas_limit=row.gas_limit,
            max_fee_wei=int(row.max_fee_wei),
            block_number=row.block_number,
            block_hash=row.block_hash,
            observed_block=row.observed_block or 0,
            attempts=tuple(row.attempts),
        )
        for row in rows
    ]


def _check_signers(context: RelayerContext, look: Look) -> None:
    """Begin with a new key where nothing of it is pending, and stop with a key that somebody else has used.

    The database's nonce is read after the chain's and never falls, so a chain ahead of it means another user of the
    key, or a database restored from an old backup. That is a doubt when it is seen first: from then on nothing new of
    the key is signed. It is a verdict when it was seen again at later blocks, sooner where a mined transaction shows it
    than where one node's pool does, and by another endpoint where one answers: a lie or a fork must not end a key's life.
    """
    chain_id = context.settings.chain_id
    subjects = {nonce_of(chain_id, address): address for address in look.signers}
    with transaction(context.sessions) as session:
        known = {row.address: row for row in session.scalars(select(Signer).where(Signer.chain_id == chain_id))}
        in_doubt = {subjects[subject] for subject in doubted(session, list(subjects))}
    for address, view in look.signers.items():
        row = known.get(address)
        if row is None and view.latest == view.pending:
            if set(nonces_elsewhere(context.endpoints, look, address)) - {view.latest}:
                log.warning("endpoints_disagree", address=address)
                continue
            values = {"chain_id": chain_id, "address": address, "next_nonce": view.latest, "state": "active"}
            with transaction(context.sessions) as session:
                session.execute(insert(Signer).values(**values).on_conflict_do_nothing())
        elif row is not None and row.state != "quarantined" and max(view.latest, view.pending) > row.next_nonce:
            _doubt(context, look, address, row.next_nonce)
        elif address in in_doubt:
            not_seen(context.sessions, nonce_of(chain_id, address), look.head)


def _doubt(context: RelayerContext, look: Look, address: str, next_nonce: int) -> None:
    view, subject = look.signers[address], nonce_of(context.settings.chain_id, address)
    counts = {"latest": view.latest, "pending": view.pending, "ours": next_nonce}
    others = nonces_elsewhere(context.endpoints, look, address)
    if others and max(others) <= next_nonce:
        log.warning("endpoints_disagree", address=address)
        return
    times = seen_again(context.sessions, subject, {}, look.head)
    if times < (STRONG_AFTER if view.latest > next_nonce else WEAK_AFTER):
        log.warning("signer_doubted", address=address, seen=times, **counts)
        return
    with transaction(context.sessions) as session:
        quarantine(session, context.settings.chain_id, address)
    drop(context.sessions, [subject])
    log.error("signer_quarantined", address=address, **counts)
