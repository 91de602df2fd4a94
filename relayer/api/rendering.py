"""The shape of a relayer transaction. Raw bytes have no place in it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from apps.common.wire import format_time
from relayer.store.models import Attempt, Message, MessageEvent, Send

Slotted = tuple[int, str, int]


def render_messages(session: Session, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Render messages with their attempts, in two queries however many they are."""
    slots = [(row.chain_id, row.from_address, row.nonce) for row in messages if row.nonce is not None]
    attempts: dict[Slotted, list[dict[str, Any]]] = {}
    if slots:
        found = session.execute(
            select(
                Attempt.chain_id,
                Attempt.address,
                Attempt.nonce,
                Attempt.tx_hash,
                Attempt.kind,
                Attempt.max_fee_per_gas_wei,
                Attempt.max_priority_fee_per_gas_wei,
                Attempt.created_at,
            )
            .where(tuple_(Attempt.chain_id, Attempt.address, Attempt.nonce).in_(slots))
            .order_by(Attempt.number)
        )
        for row in found:
            attempts.setdefault((row.chain_id, row.address, row.nonce), []).append(
                {
                    "tx_hash": row.tx_hash,
                    "kind": row.kind,
                    "max_fee_per_gas_wei": str(row.max_fee_per_gas_wei),
                    "max_priority_fee_per_gas_wei": str(row.max_priority_fee_per_gas_wei),
                    "created_at": format_time(row.created_at),
                }
            )
    return [
        render(row, attempts.get((row.chain_id, row.from_address, row.nonce), []) if row.nonce is not None else [])
        for row in messages
    ]


def render(row: Message, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """Render a message with these attempts of its slot."""
    return {
        "message_id": row.message_id,
        "purpose": row.purpose,
        "status": row.status,
        "reason": row.reason,
        "from": row.from_address,
        "to": row.to_address,
        "data": "0x" + bytes(row.data).hex(),
        "value_wei": str(row.value_wei),
        "gas_limit": row.gas_limit,
        "deadline": format_time(row.deadline),
        "nonce": row.nonce,
        "tx_hash": row.tx_hash,
        "block_number": row.block_number,
        "block_hash": row.block_hash,
        "confirmations": _confirmations(row),
        "observed_block": row.observed_block,
        "gas_cost_wei": None if row.gas_cost_wei is None else str(row.gas_cost_wei),
        "revert": row.revert,
        "attempts": attempts,
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
    }


def render_event(row: MessageEvent) -> dict[str, Any]:
    return {
        "number": row.number,
        "type": row.type,
        "body": row.body,
        "previous_digest": row.previous_digest,
        "digest": row.digest,
        "at": format_time(row.at),
    }


def render_send(row: Send) -> dict[str, Any]:
    return {
        "id": row.id,
        "tx_hash": row.tx_hash,
        "endpoint": row.endpoint,
        "reply": row.reply,
        "text": row.reply_text,
        "at": format_time(row.started_at),
        "answered_at": format_time(row.finished_at),
    }


def _confirmations(row: Message) -> int:
    """Blocks at and on top of the one it is in, as of the head last looked at; frozen once final."""
    if row.block_number is None or row.observed_head is None:
        return 0
    return max(0, row.observed_head - row.block_number + 1)
