"""Messages as the pump reads them, and the statements by which it moves one that has no nonce.

A message is read at three points of its life: while it is queued, while it has a nonce, and when another attempt may be
due. Each reading is one query over many messages, with what that step needs beside `Requested`; to read all of it
everywhere would join the attempts of thousands of messages at each tick for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import structlog
from sqlalchemy import Row, func, select, text, update
from sqlalchemy.orm import Session

from apps.common.database import one_of, transaction
from relayer.context import RelayerContext
from relayer.signing.policy import Proposal, Refusal
from relayer.store.events import record
from relayer.store.models import Message
from relayer.store.states import TransactionStatus

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Requested:
    """What a message asks to be signed: amounts in wei, addresses checksummed."""

    message_id: str
    sender: str
    to: str
    data: bytes
    value_wei: int
    gas_limit: int


@dataclass(frozen=True, kw_only=True)
class Queued(Requested):
    """A message without a nonce. `seq`: its place in the order of acceptance; `gas_named`: whether its caller chose the
    gas limit; `reason`: why it waits, as last noted."""

    seq: int
    gas_named: bool
    purpose: str | None
    deadline: datetime | None
    reason: dict[str, str] | None
    waited_a_day: bool

    @classmethod
    def columns(cls) -> tuple[Any, ...]:
        """What `of` reads."""
        return (
            Message.message_id, Message.seq, Message.from_address, Message.to_address, Message.data, Message.value_wei,
            Message.gas_limit, Message.request["gas_limit"].astext.is_not(None).label("gas_named"), Message.purpose,
            Message.deadline, Message.reason,
            (Message.created_at < func.now() - text("interval '24 hours'")).label("waited_a_day"),
        )  # fmt: skip

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(
            message_id=row.message_id,
            seq=row.seq,
            sender=row.from_address,
            to=row.to_address,
            data=bytes(row.data),
            value_wei=row.value_wei,
            gas_limit=row.gas_limit,
            gas_named=row.gas_named,
            purpose=row.purpose,
            deadline=row.deadline,
            reason=row.reason,
            waited_a_day=row.waited_a_day,
        )

    @property
    def proposal(self) -> Proposal:
        gas_limit = self.gas_limit if self.gas_named else None
        return Proposal(self.sender, self.to, self.data, self.value_wei, gas_limit, self.purpose)


@dataclass(frozen=True, kw_only=True)
class OpenMessage(Requested):
    """A message with a nonce that is not final, as read at the start of a tick.

    `attempts`: hashes, oldest first. `max_fee_wei`: the highest of theirs, per gas. `block_number`, `block_hash`: where it
    was last seen mined.
    """

    seq: int
    nonce: int
    status: TransactionStatus
    max_fee_wei: int
    block_number: int | None
    block_hash: str | None
    observed_block: int
    attempts: tuple[str, ...]


def lock_queued(session: Session, message_ids: Sequence[str]) -> set[str]:
    """Lock those messages that are still queued and within their deadline; those locked by another pump are left out."""
    query = (
        select(Message.message_id)
        .where(
            one_of(Message.message_id, message_ids),
            Message.status == TransactionStatus.QUEUED,
            (Message.deadline.is_(None)) | (Message.deadline > func.clock_timestamp()),
        )
        .order_by(Message.seq)
        .with_for_update(skip_locked=True)
    )
    return set(session.scalars(query))


def reject(context: RelayerContext, row: Queued, refusal: Refusal) -> list[str]:
    """End a queued message without a nonce; returns its id, or nothing where another pump has moved it meanwhile."""
    with transaction(context.sessions) as session:
        if not lock_queued(session, [row.message_id]):
            return []
        end(session, row.message_id, TransactionStatus.REJECTED, refusal)
    log.warning("message_rejected", message_id=row.message_id, code=refusal.code)
    return [row.message_id]


def note(context: RelayerContext, row: Queued, code: str, detail: str) -> None:
    """Write on a queued message why it waits; into its history only when the code is another one than before."""
    reason = {"code": code, "detail": detail}
    if row.reason == reason:
        return
    with transaction(context.sessions) as session:
        if lock_queued(session, [row.message_id]):
            set_reason(session, row.message_id, reason)
            if row.reason is None or row.reason["code"] != code:
                record(session, row.message_id, "waiting", reason)


def end(session: Session, message_id: str, status: TransactionStatus, refusal: Refusal) -> None:
    """End a locked message that has no nonce."""
    reason = {"code": refusal.code, "detail": refusal.detail}
    session.execute(
        update(Message)
        .where(Message.message_id == message_id)
        .values(status=status, reason=reason, updated_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )
    record(session, message_id, status, reason)


def set_reason(session: Session, message_id: str, reason: dict[str, str]) -> None:
    """Write on a locked message why it waits; nothing else of it changes."""
    session.execute(
        update(Message).where(Message.message_id == message_id).values(reason=reason),
        execution_options={"synchronize_session": False},
    )
