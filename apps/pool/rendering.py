"""Rows to the shapes of the contract, many at a time."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from apps.clients.shapes import common
from apps.clients.shapes import pool as shapes
from apps.flow.row import Reason
from apps.pool.models import (
    Batch,
    BatchTransaction,
    Deposit,
    Payout,
    PayoutTransaction,
    Request,
    RequestEvent,
    Withdrawal,
)
from apps.pool.states import (
    NEXT_STEPS,
    REQUEST_TERMINAL,
    BatchKind,
    BatchStatus,
    RequestKind,
    RequestStatus,
    TransactionStatus,
)

# Reasons to wait that no timer ends.
WITHOUT_A_TIME = frozenset({"stake_above_limit", "stake_above_cap", "unstake_above_limit", "batches_paused"})


# In order: what has its number came before what has none yet.
_TIMELINES = text(
    """
    SELECT request_id, status, created_at, reason FROM (
        SELECT request_id, status, created_at, reason, false AS later, sequence AS place
        FROM request_events WHERE request_id = ANY(:ids)
        UNION ALL
        SELECT request_id, status, created_at, reason, true, id FROM unnumbered_events WHERE request_id = ANY(:ids)
    ) events ORDER BY later, place
    """
)


def render_requests(session: Session, rows: Sequence[Request], max_wait_sec: float) -> list[shapes.Request]:
    """Render requests with their timeline, withdrawals and transactions: some statements, however many rows.

    Columns are read rather than rows of the ORM, which would cost more than the statements.
    """
    if not rows:
        return []
    withdrawals: dict[str, list[_Withdrawal]] = defaultdict(list)
    unstakes = [row.id for row in rows if row.kind == RequestKind.UNSTAKE]  # no other kind has withdrawals
    if unstakes:
        for withdrawal in session.execute(
            select(*_WITHDRAWAL).where(Withdrawal.request_id.in_(unstakes)).order_by(Withdrawal.withdrawal_id)
        ):
            withdrawals[withdrawal.request_id].append(_Withdrawal(*withdrawal))
    timelines: dict[str, list[shapes.TimelineEntry]] = defaultdict(list)
    for request_id, status, at, why in session.execute(_TIMELINES, {"ids": [row.id for row in rows]}):
        timelines[request_id].append(shapes.TimelineEntry(RequestStatus(status), at, shown_reason(why)))
    batch_ids = {row.batch_id for row in rows if row.batch_id}
    batch_ids |= {item.claim_batch_id for items in withdrawals.values() for item in items if item.claim_batch_id}
    transactions = batch_transactions(session, batch_ids)
    shown = [shown_request(row, timelines[row.id], max_wait_sec, withdrawals[row.id], transactions) for row in rows]
    details = _money_details(session, rows)
    return [replace(request, **details[request.id]) if request.id in details else request for request in shown]


def batch_transactions(session: Session, batch_ids: set[str]) -> Mapping[str, list[shapes.Sent]]:
    """The transactions of batches, in the order they were sent; none for a batch that sent nothing."""
    found: dict[str, list[shapes.Sent]] = defaultdict(list)
    if not batch_ids:
        return found
    order = (BatchTransaction.created_at, BatchTransaction.message_id)
    for row in session.scalars(
        select(BatchTransaction).where(BatchTransaction.batch_id.in_(batch_ids)).order_by(*order)
    ):
        status = TransactionStatus(row.status)
        found[row.batch_id].append(shapes.Sent(row.message_id, row.purpose, status, row.tx_hash))
    return found


def shown_batch(row: Batch, transactions: list[shapes.Sent]) -> shapes.Batch:
    return shapes.Batch(
        id=row.id,
        kind=BatchKind(row.kind),
        status=BatchStatus(row.status),
        reason=shown_reason(row.reason),
        request_count=row.request_count,
        amount_wei=row.amount_wei,
        transactions=transactions,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def render_events(session: Session, events: Sequence[RequestEvent], max_wait_sec: float) -> list[shapes.Event]:
    """Render events of the feed: five statements at most, however many."""
    rows = session.scalars(select(Request).where(Request.id.in_({event.request_id for event in events}))).all()
    requests = {item.id: item for item in render_requests(session, rows, max_wait_sec)}
    return [shown_event(event, requests[event.request_id]) for event in events]


def shown_event(event: RequestEvent, request: shapes.Request) -> shapes.Event:
    """An event of the feed: the request as it stood when the event was written."""
    position = next(
        (number for number, entry in enumerate(request.timeline) if entry.at == event.created_at),
        len(request.timeline) - 1,
    )
    then = replace(
        request,
        status=RequestStatus(event.status),
        reason=shown_reason(event.reason),
        amount_wei=event.amount_wei,
        settled_wei=event.settled_wei,
        batch_id=event.batch_id,
        timeline=request.timeline[: position + 1],
        updated_at=event.created_at,
        next=None if event.status in REQUEST_TERMINAL else request.next,
    )
    return shapes.Event(
        event.sequence, then.status.event_type, event.request_id, request.user_id, then, event.created_at
    )


def shown_reason(why: Reason | None) -> common.Reason | None:
    return None if why is None else common.Reason(why["code"], why["detail"])


def shown_request(
    row: Request,
    timeline: list[shapes.TimelineEntry],
    max_wait_sec: float,
    withdrawals: Sequence["_Withdrawal"] = (),
    transactions: Mapping[str, list[shapes.Sent]] = MappingProxyType({}),
) -> shapes.Request:
    """A request as callers see it; `transactions` by their batch."""
    batches = dict.fromkeys([row.batch_id, *(item.claim_batch_id for item in withdrawals)])
    return shapes.Request(
        id=row.id,
        message_id=row.message_id,
        kind=RequestKind(row.kind),
        pool_id=row.pool_id,
        user_id=row.user_id,
        amount_wei=row.amount_wei,
        settled_wei=row.settled_wei,
        status=RequestStatus(row.status),
        reason=shown_reason(row.reason),
        batch_id=row.batch_id,
        withdrawals=[
            shapes.RequestWithdrawal(item.withdrawal_id, item.amount_wei, item.paid_wei) for item in withdrawals
        ],
        transactions=[entry for batch in batches if batch for entry in transactions[batch]],
        next=_next(row, withdrawals, max_wait_sec),
        timeline=timeline,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _money_details(session: Session, rows: Sequence[Request]) -> dict[str, dict[str, Any]]:
    """What payouts and deposits show beside their rows: fields of the shape, by request."""
    found: dict[str, dict[str, Any]] = {}
    payouts = [row.id for row in rows if row.kind == RequestKind.PAYOUT]
    if payouts:
        query = (
            select(Payout, PayoutTransaction)
            .outerjoin(PayoutTransaction, PayoutTransaction.request_id == Payout.request_id)
            .where(Payout.request_id.in_(payouts))
        )
        for payout, sent in session.execute(query):
            found[payout.request_id] = {
                "payout": shapes.PayoutDetails(
                    to=payout.to_address,
                    needs_approval=payout.needs_approval,
                    by=payout.asked_by,
                    decided_by=payout.decided_by,
                    decided_at=payout.decided_at,
                ),
                "transactions": []
                if sent is None
                else [shapes.Sent(sent.message_id, "payout", TransactionStatus(sent.status), sent.tx_hash)],
            }
    deposits = [row.id for row in rows if row.kind == RequestKind.DEPOSIT]
    if deposits:
        wanted = select(Deposit.request_id, Deposit.tx_hash).where(Deposit.request_id.in_(deposits))
        for request_id, tx_hash in session.execute(wanted):
            found[request_id] = {"deposit_tx_hash": tx_hash}
    return found


class _Withdrawal(NamedTuple):
    """What is shown of a withdrawal NFT, or decides what is."""

    request_id: str
    withdrawal_id: int
    amount_wei: int
    paid_wei: int | None
    claim_batch_id: str | None
    claim_after: datetime | None


_WITHDRAWAL = [getattr(Withdrawal, name) for name in _Withdrawal._fields]


def _next(row: Request, withdrawals: Sequence[_Withdrawal], max_wait_sec: float) -> shapes.NextStep | None:
    step = NEXT_STEPS.get((RequestKind(row.kind), RequestStatus(row.status)))
    if row.status == RequestStatus.QUEUED and row.intent is not None:
        step = "cancel"
    elif row.intent is not None and step is not None:  # a payout that is not to be sent any more
        step = "give_back"
    if step is None:
        return None
    due: datetime | None = row.next_run_at
    if step == "batch" and row.queued_at is not None:
        due = max(row.queued_at + timedelta(seconds=max_wait_sec), row.eligible_at or row.queued_at)
        if row.reason is not None and row.reason["code"] in WITHOUT_A_TIME:
            due = None
    again = [item.claim_after for item in withdrawals if item.paid_wei is None and item.claim_after is not None]
    if step == "finalize" and again:  # it is final, and its claim failed
        return shapes.NextStep("pay", min(again))
    if step == "finalize":  # Lido's to do; an estimate
        return shapes.NextStep(step, row.expected_at)
    return shapes.NextStep(step, due)
