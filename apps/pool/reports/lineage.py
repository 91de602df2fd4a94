"""The way of a wei: from a request to movements, batches, transactions, blocks and logs, and from a transaction back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.orm import Session

from apps.clients.shapes import reports as shapes
from apps.clients.shapes.protocols import LidoReceipt
from apps.common.database import transaction
from apps.common.errors import NotFound
from apps.common.wei import exact_int
from apps.common.wire import cut
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.models import Batch, BatchElement, BatchTransaction, Request, Withdrawal
from apps.pool.reads import PoolReads
from apps.pool.states import BatchKind, RequestKind, TransactionStatus

# The purpose whose logs carry the wei of a batch of each kind.
CARRIES = {BatchKind.STAKE: "submit", BatchKind.UNSTAKE: "request", BatchKind.CLAIM: "claim"}


@dataclass(frozen=True)
class _Log:
    event: str
    log_index: int
    withdrawal_id: int | None
    amount_wei: int


def lineage(context: PoolContext, reads: PoolReads, request_id: str) -> shapes.Lineage:
    """A request's way to the chain. Raises `NotFound`."""
    with transaction(context.sessions) as session:
        row = session.get(Request, request_id)
        if row is None:
            raise NotFound("There is no request with this id.")
        withdrawals = session.scalars(
            select(Withdrawal).where(Withdrawal.request_id == request_id).order_by(Withdrawal.withdrawal_id)
        ).all()
        wanted = {row.batch_id, *(item.claim_batch_id for item in withdrawals)} - {None}
        batches = session.scalars(select(Batch).where(Batch.id.in_(wanted)).order_by(Batch.id)).all()
        sent = session.scalars(
            select(BatchTransaction)
            .where(BatchTransaction.batch_id.in_(wanted))
            .order_by(BatchTransaction.created_at, BatchTransaction.message_id)
        ).all()
        shown = reads.render(session, [row])[0]
    return shapes.Lineage(
        request=shown,
        movements=_movements(context, row, withdrawals),
        batches=[
            _batch(context, batch, row, withdrawals, [tx for tx in sent if tx.batch_id == batch.id])
            for batch in batches
        ],
    )


def requests_of_transaction(
    context: PoolContext, tx_hash: str, query: shapes.TransactionRequestsQuery
) -> shapes.TransactionRequests:
    """Whose wei a transaction of this pool's batches moved, by id. Raises `NotFound`."""
    with transaction(context.sessions) as session:
        found = session.execute(
            select(BatchTransaction, Batch)
            .join(Batch, Batch.id == BatchTransaction.batch_id)
            .where(BatchTransaction.tx_hash == tx_hash)
            .order_by(BatchTransaction.created_at.desc())
            .limit(1)
        ).one_or_none()
        if found is None:
            raise NotFound("No batch of this service sent a transaction with this hash.")
        sent, batch = found
        carries = sent.purpose == CARRIES[BatchKind(batch.kind)] and sent.status == TransactionStatus.CONFIRMED
        items, total = _shares(session, batch, query) if carries else ([], None)
    receipt = context.protocols.receipt(tx_hash)
    shown, following = cut(items, query.limit, lambda item: item.request_id)
    logs = [] if receipt is None else _logs(receipt, sent.purpose)
    return shapes.TransactionRequests(
        tx_hash=tx_hash,
        purpose=sent.purpose,
        batch_id=batch.id,
        block_number=None if receipt is None else receipt.block_number,
        logs_wei=sum(log.amount_wei for log in logs) if carries and receipt is not None else None,
        requests_wei=total,
        items=shown,
        next=following,
    )


def _movements(context: PoolContext, row: Request, withdrawals: Sequence[Withdrawal]) -> list[shapes.LineageMovement]:
    """What the request has moved in the ledger, in order: looked up by each name that it may have used."""
    found = [context.ledger.movement(name) for name in _names(row, withdrawals)]
    moved = [
        shapes.LineageMovement(item.id, item.message_id, item.kind, item.amount_wei, item.created_at)
        for item in found
        if item is not None
    ]
    return sorted(moved, key=lambda item: item.id)


def _names(row: Request, withdrawals: Sequence[Withdrawal]) -> list[str]:
    if row.kind == RequestKind.STAKE:
        of_stake = (effects.stake_reserve, effects.stake_confirm, effects.stake_release, effects.stake_cancel)
        return [name(row.id) for name in of_stake]
    if row.kind == RequestKind.REWARD_CLAIM:
        return [effects.reward_book(effects.reward_claim(row.id))]
    if row.kind == RequestKind.PAYOUT:
        return [name(row.id) for name in (effects.payout_reserve, effects.payout_paid, effects.payout_return)]
    if row.kind == RequestKind.DEPOSIT:
        return [effects.deposit(str(row.body["tx_hash"]))]
    names = [effects.unstake_cancel(row.id), effects.unstake_cut(row.id)]
    for number in range(1, row.reservation + 1):
        names += [
            effects.reward_book(effects.unstake_settle(row.id, number)),
            effects.unstake_start(row.id, number),
            effects.unstake_undo(row.id, number),
        ]
    if row.batch_id is not None:
        names.append(effects.unstake_too_small(row.id, row.batch_id))
    for item in withdrawals:
        names += [effects.withdrawal_paid(item.withdrawal_id), effects.withdrawal_shortfall(item.withdrawal_id)]
    return names


def _batch(
    context: PoolContext,
    batch: Batch,
    row: Request,
    withdrawals: Sequence[Withdrawal],
    sent: Sequence[BatchTransaction],
) -> shapes.LineageBatch:
    mine = [item for item in withdrawals if batch.id in {item.claim_batch_id, item.batch_id}]
    numbers = {item.withdrawal_id for item in mine}
    own_wei = row.amount_wei or 0
    if batch.kind == BatchKind.CLAIM:
        own_wei = sum(item.amount_wei for item in mine)
    return shapes.LineageBatch(
        id=batch.id,
        kind=BatchKind(batch.kind),
        request_count=batch.request_count,
        amount_wei=batch.amount_wei,
        of_request_wei=own_wei,
        transactions=[_transaction(context, batch, item, row, numbers) for item in sent],
    )


def _transaction(
    context: PoolContext, batch: Batch, sent: BatchTransaction, row: Request, numbers: set[int]
) -> shapes.LineageTransaction:
    receipt = None if sent.tx_hash is None else context.protocols.receipt(sent.tx_hash)
    logs = []
    if receipt is not None and sent.purpose == CARRIES[BatchKind(batch.kind)]:
        for log in _logs(receipt, sent.purpose):
            own = log.amount_wei if log.withdrawal_id in numbers else 0
            if log.withdrawal_id is None:
                own = row.amount_wei or 0
            if own:
                logs.append(shapes.LineageLog(log.event, log.log_index, log.withdrawal_id, log.amount_wei, own))
    return shapes.LineageTransaction(
        message_id=sent.message_id,
        purpose=sent.purpose,
        status=TransactionStatus(sent.status),
        tx_hash=sent.tx_hash,
        block_number=None if receipt is None else receipt.block_number,
        success=None if receipt is None else receipt.success,
        logs=logs,
    )


def _logs(receipt: LidoReceipt, purpose: str) -> list[_Log]:
    """The logs that carry the wei of a transaction's purpose."""
    if purpose == "submit":
        return [_Log("Submitted", log.log_index, None, log.amount_wei) for log in receipt.submitted]
    if purpose == "request":
        return [
            _Log("WithdrawalRequested", log.log_index, log.withdrawal_id, log.amount_wei)
            for log in receipt.withdrawal_requests
        ]
    return [
        _Log("WithdrawalClaimed", log.log_index, log.withdrawal_id, log.amount_wei) for log in receipt.withdrawal_claims
    ]


def _shares(
    session: Session, batch: Batch, query: shapes.TransactionRequestsQuery
) -> tuple[list[shapes.RequestShare], int]:
    """A page of requests with what is theirs, one more than asked for, and the sum of all of them."""
    amount, join, of_batch = _of_batch(batch)
    total = select(func.coalesce(func.sum(amount), 0)).select_from(Request)
    page = select(Request.id, Request.user_id, func.sum(amount)).group_by(Request.id).order_by(Request.id)
    if join is not None:
        table, on = join
        total, page = total.join(table, on), page.join(table, on)
    if query.after is not None:
        page = page.where(Request.id > query.after)
    rows = session.execute(page.where(of_batch).limit(query.limit + 1)).all()
    sums = exact_int(session.scalar(total.where(of_batch)) or 0)
    return [shapes.RequestShare(request_id, user_id, exact_int(wei)) for request_id, user_id, wei in rows], sums


def _of_batch(batch: Batch) -> tuple[Any, tuple[Any, ColumnElement[bool]] | None, ColumnElement[bool]]:
    """The amount that is a request's in a batch, what else is to be read for it, and which rows are the batch's."""
    if batch.kind == BatchKind.STAKE:
        return Request.amount_wei, None, Request.batch_id == batch.id
    if batch.kind == BatchKind.UNSTAKE:
        on = BatchElement.request_id == Request.id
        return BatchElement.amount_wei, (BatchElement, on), BatchElement.batch_id == batch.id
    paid = func.coalesce(Withdrawal.paid_wei, literal(0))
    return paid, (Withdrawal, Withdrawal.request_id == Request.id), Withdrawal.claim_batch_id == batch.id
