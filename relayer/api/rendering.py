"""Rows of the database as the shapes that callers get. Raw bytes have no place in them."""

from collections.abc import Sequence

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from apps.clients.shapes.common import Reason
from apps.clients.shapes.relayer import Attempt, Event, Revert, Send, Transaction
from relayer.chain import reverts
from relayer.store import models
from relayer.store.states import AttemptKind, TransactionStatus

NonceKey = tuple[int, str, int]


def render_messages(session: Session, messages: Sequence[models.Message]) -> list[Transaction]:
    """Render messages with their attempts, in two queries however many they are."""
    keys = [(row.chain_id, row.from_address, row.nonce) for row in messages if row.nonce is not None]
    attempts: dict[NonceKey, list[Attempt]] = {}
    if keys:
        stored = models.Attempt
        found = session.execute(
            select(
                stored.chain_id,
                stored.address,
                stored.nonce,
                stored.tx_hash,
                stored.kind,
                stored.max_fee_per_gas_wei,
                stored.max_priority_fee_per_gas_wei,
                stored.created_at,
            )
            .where(tuple_(stored.chain_id, stored.address, stored.nonce).in_(keys))
            .order_by(stored.number)
        )
        for row in found:
            attempts.setdefault((row.chain_id, row.address, row.nonce), []).append(
                Attempt(
                    tx_hash=row.tx_hash,
                    kind=AttemptKind(row.kind),
                    max_fee_per_gas_wei=row.max_fee_per_gas_wei,
                    max_priority_fee_per_gas_wei=row.max_priority_fee_per_gas_wei,
                    created_at=row.created_at,
                )
            )
    return [
        render(row, attempts.get((row.chain_id, row.from_address, row.nonce), []) if row.nonce is not None else [])
        for row in messages
    ]


def render(row: models.Message, attempts: list[Attempt]) -> Transaction:
    """Render a message with these attempts of its nonce."""
    return Transaction(
        message_id=row.message_id,
        purpose=row.purpose,
        status=TransactionStatus(row.status),
        reason=render_reason(row),
        sender=row.from_address,
        to=row.to_address,
        data="0x" + bytes(row.data).hex(),
        value_wei=row.value_wei,
        gas_limit=row.gas_limit,
        deadline=row.deadline,
        nonce=row.nonce,
        tx_hash=row.tx_hash,
        block_number=row.block_number,
        block_hash=row.block_hash,
        confirmations=_confirmations(row),
        observed_block=row.observed_block,
        gas_cost_wei=row.gas_cost_wei,
        revert=None if row.revert is None else Revert(row.revert["name"], row.revert["detail"]),
        passing=_passing(row),
        attempts=attempts,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def render_reason(row: models.Message) -> Reason | None:
    return None if row.reason is None else Reason(row.reason["code"], row.reason["detail"])


def render_event(row: models.MessageEvent) -> Event:
    return Event(row.number, row.type, row.body, row.previous_digest, row.digest, row.at)


def render_send(row: models.Send) -> Send:
    return Send(row.id, row.tx_hash, row.endpoint, row.reply, row.reply_text, row.started_at, row.finished_at)


def _confirmations(row: models.Message) -> int:
    """Blocks at and on top of the one it is in, as of the head last read; frozen once final."""
    if row.block_number is None or row.observed_head is None:
        return 0
    return max(0, row.observed_head - row.block_number + 1)


def _passing(row: models.Message) -> str | None:
    """The code of a reason that passes by itself, where the chain, or its simulation before, refused for one."""
    if row.status == TransactionStatus.REVERTED and row.revert is not None:
        return reverts.passing(row.revert["name"], row.revert["detail"])
    if row.status == TransactionStatus.REJECTED and row.reason is not None:
        return reverts.passing_in_simulation(row.reason["code"], row.reason["detail"])
    return None
