"""One tick: read the chain, end what is settled, check the keys, sign what is due, send what is not mined.

Ticks run one at a time where they can, for less work; two at once are harmless, as every write checks its row under
lock. A tick that dies anywhere is finished by the next one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine, func, select, text
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import OperationalError

from apps.common.database import transaction
from apps.ethereum.endpoints import ChainUnavailable
from relayer.chain.snapshot import read_chain
from relayer.context import RelayerContext
from relayer.lifecycle.broadcast import send_due
from relayer.lifecycle.finalize import finalize
from relayer.lifecycle.quarantine import check_signers
from relayer.lifecycle.replace import replace_due
from relayer.lifecycle.sign_queued import sign_queued
from relayer.store.messages import OpenMessage
from relayer.store.models import Attempt, Message
from relayer.store.states import OPEN, TransactionStatus

log = structlog.get_logger(__name__)

# A tick whose process is frozen or whose machine is gone keeps other ticks out for no longer than this.
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
            snapshot = read_chain(context, messages)
        except ChainUnavailable:
            log.warning("no_look_at_chain")
            return Tick(ran=True)
        ended = finalize(context, snapshot, messages)
        if ended:
            on_ended(ended)
        check_signers(context, snapshot)
        signed, refused = sign_queued(context, snapshot, messages)
        if refused:
            on_ended(refused)
        replaced = replace_due(context, snapshot)
        sent = send_due(context, snapshot)
    return Tick(True, snapshot.head, len(ended) + len(refused), signed, replaced, sent)


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
            sender=row.from_address,
            nonce=row.nonce,
            status=TransactionStatus(row.status),
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
