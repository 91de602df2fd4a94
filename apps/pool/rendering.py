"""Rows to the shapes of the contract, many at a time."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.common.wire import format_time
from apps.pool.models import Batch, BatchTransaction, Request, RequestEvent, Withdrawal
from apps.pool.states import REQUEST_TERMINAL, RequestStatus

# What happens next, by (kind, status); `due_at` is known only where a timer decides.
NEXT_STEPS = {
    ("stake", "reserving"): "reserve",
    ("stake", "queued"): "batch",
    ("stake", "batched"): "submit",
    ("stake", "submitting"): "mine",
    ("stake", "confirming"): "confirm",
    ("unstake", "reserving"): "reserve",
    ("unstake", "queued"): "batch",
    ("unstake", "batched"): "request",
    ("unstake", "requesting"): "confirm",
    ("unstake", "waiting"): "finalize",
    ("unstake", "claiming"): "pay",
    ("reward_claim", "settling"): "settle",
}
# Reasons to wait that no timer ends.
WITHOUT_A_TIME = frozenset({"stake_above_limit", "stake_above_cap", "unstake_above_limit", "batches_paused"})


def render_requests(session: Session, rows: Sequence[Request], max_wait_sec: float) -> list[dict[str, Any]]:
    """Render requests with their timeline, withdrawals and transactions: four statements however many rows."""
    if not rows:
        return []
    ids = [row.id for row in rows]
    withdrawals: dict[str, list[Withdrawal]] = defaultdict(list)
    for withdrawal in session.scalars(
        select(Withdrawal).where(Withdrawal.request_id.in_(ids)).order_by(Withdrawal.withdrawal_id)
    ):
        withdrawals[withdrawal.request_id].append(withdrawal)
    events: dict[str, list[RequestEvent]] = defaultdict(list)
    for event in session.scalars(
        select(RequestEvent).where(RequestEvent.request_id.in_(ids)).order_by(RequestEvent.sequence)
    ):
        events[event.request_id].append(event)
    batch_ids = {row.batch_id for row in rows if row.batch_id}
    batch_ids |= {item.claim_batch_id for items in withdrawals.values() for item in items if item.claim_batch_id}
    transactions = batch_transactions(session, batch_ids)
    return [_request(row, withdrawals[row.id], events[row.id], transactions, max_wait_sec) for row in rows]


def batch_transactions(session: Session, batch_ids: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The transactions of batches, in the order they were sent."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if not batch_ids:
        return found
    order = (BatchTransaction.created_at, BatchTransaction.message_id)
    for row in session.scalars(
        select(BatchTransaction).where(BatchTransaction.batch_id.in_(batch_ids)).order_by(*order)
    ):
        found[row.batch_id].append(
            {"message_id": row.message_id, "purpose": row.purpose, "status": row.status, "tx_hash": row.tx_hash}
        )
    return found


def render_batch(row: Batch, transactions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.kind,
        "status": row.status,
        "reason": row.reason,
        "request_count": row.request_count,
        "amount_wei": str(row.amount_wei),
        "transactions": transactions,
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
    }


def render_event(event: RequestEvent, request: dict[str, Any]) -> dict[str, Any]:
    """An event of the feed: the request as it stood when the event was written."""
    position = next(
        (number for number, entry in enumerate(request["timeline"]) if entry["at"] == format_time(event.created_at)),
        len(request["timeline"]) - 1,
    )
    then = {
        **request,
        "status": event.status,
        "reason": event.reason,
        "amount_wei": _text(event.amount_wei),
        "settled_wei": _text(event.settled_wei),
        "batch_id": event.batch_id,
        "timeline": request["timeline"][: position + 1],
        "updated_at": format_time(event.created_at),
    }
    if event.status in REQUEST_TERMINAL:
        then["next"] = None
    return {
        "sequence": event.sequence,
        "type": f"request.{event.status}",
        "pool_request_id": event.request_id,
        "user_id": request["user_id"],
        "data": then,
        "created_at": format_time(event.created_at),
    }


def _request(
    row: Request,
    withdrawals: list[Withdrawal],
    events: list[RequestEvent],
    transactions: dict[str, list[dict[str, Any]]],
    max_wait_sec: float,
) -> dict[str, Any]:
    batches = dict.fromkeys([row.batch_id, *(item.claim_batch_id for item in withdrawals)])
    return {
        "id": row.id,
        "message_id": row.message_id,
        "kind": row.kind,
        "pool_id": row.pool_id,
        "user_id": row.user_id,
        "amount_wei": _text(row.amount_wei),
        "settled_wei": _text(row.settled_wei),
        "status": row.status,
        "reason": row.reason,
        "batch_id": row.batch_id,
        "withdrawals": [
            {"withdrawal_id": item.withdrawal_id, "amount_wei": str(item.amount_wei), "paid_wei": _text(item.paid_wei)}
            for item in withdrawals
        ],
        "transactions": [entry for batch in batches if batch for entry in transactions[batch]],
        "next": _next(row, withdrawals, max_wait_sec),
        "timeline": [
            {"status": event.status, "at": format_time(event.created_at), "reason": event.reason} for event in events
        ],
        "created_at": format_time(row.created_at),
        "updated_at": format_time(row.updated_at),
    }


def _next(row: Request, withdrawals: list[Withdrawal], max_wait_sec: float) -> dict[str, Any] | None:
    step = NEXT_STEPS.get((row.kind, row.status))
    if row.status == RequestStatus.QUEUED and row.intent is not None:
        step = "cancel"
    if step is None:
        return None
    due: datetime | None = row.next_run_at
    if step == "batch" and row.queued_at is not None:
        due = max(row.queued_at + timedelta(seconds=max_wait_sec), row.eligible_at or row.queued_at)
        if row.reason is not None and row.reason["code"] in WITHOUT_A_TIME:
            due = None
    again = [item.claim_after for item in withdrawals if item.paid_wei is None and item.claim_after is not None]
    if step == "finalize" and again:  # it is final, and its claim failed
        return {"step": "pay", "due_at": format_time(min(again))}
    if step == "finalize":  # Lido's to do; an estimate
        return {"step": step, "due_at": format_time(row.expected_at)}
    return {"step": step, "due_at": format_time(due)}


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)
