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
from apps.pool.models import (
    Batch,
    BatchElement,
    BatchTransaction,
    Deposit,
    PayoutTransaction,
    Request,
    Withdrawal,
)
from apps.pool.reads import PoolReads
from apps.pool.states import BatchKind, RequestKind, TransactionStatus

# The purpose whose logs carry the wei of a batch of each kind.
CARRIES = {BatchKind.STAKE: "submit", BatchKind.UNSTAKE: "request", BatchKind.CLAIM: "claim"}
# The purposes of transfers of ETH, which are of no batch.
PAYOUT, DEPOSIT = "payout", "deposit"


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
        own = [_own_transaction(found) for found in _own(session, request_id=request_id)]
    return shapes.Lineage(
        request=shown,
        movements=_movements(context, row, withdrawals, [sent.tx_hash for sent in own if sent.tx_hash is not None]),
        batches=[
            _batch(context, batch, row, withdrawals, [one for one in sent if one.batch_id == batch.id])
            for batch in batches
        ],
        transactions=own,
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
            return _of_one_request(session, tx_hash)
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
        value_wei=sum(log.amount_wei for log in logs) if carries and receipt is not None else None,
        requests_wei=total,
        items=shown,
        next=following,
    )


def _own(
    session: Session, *, request_id: str | None = None, tx_hash: str | None = None
) -> list[tuple[Request, PayoutTransaction | Deposit]]:
    """The transactions of payouts and deposits, each with its request: of a request, or with a hash."""
    paid = select(Request, PayoutTransaction).join(PayoutTransaction, PayoutTransaction.request_id == Request.id)
    booked = select(Request, Deposit).join(Deposit, Deposit.request_id == Request.id)
    if request_id is not None:
        paid, booked = paid.where(Request.id == request_id), booked.where(Request.id == request_id)
    if tx_hash is not None:
        paid, booked = paid.where(PayoutTransaction.tx_hash == tx_hash), booked.where(Deposit.tx_hash == tx_hash)
    found: list[tuple[Request, PayoutTransaction | Deposit]] = [(row[0], row[1]) for row in session.execute(paid)]
    return [*found, *((row[0], row[1]) for row in session.execute(booked))]


def _own_transaction(found: tuple[Request, PayoutTransaction | Deposit]) -> shapes.LineageTransaction:
    _, row = found
    sent = isinstance(row, PayoutTransaction)
    status = TransactionStatus(row.status) if isinstance(row, PayoutTransaction) else TransactionStatus.CONFIRMED
    return shapes.LineageTransaction(
        message_id=row.message_id if isinstance(row, PayoutTransaction) else None,
        purpose=PAYOUT if sent else DEPOSIT,
        status=status,
        tx_hash=row.tx_hash,
        block_number=row.block_number,
        success=True if status == TransactionStatus.CONFIRMED else None,
        logs=[],
    )


def _of_one_request(session: Session, tx_hash: str) -> shapes.TransactionRequests:
    """Of a transfer: the payout that asked for it, or the deposit that books it."""
    found = _own(session, tx_hash=tx_hash)
    if not found:
        raise NotFound("No request of this service stands behind a transaction with this hash.")
    request, row = found[0]
    shown = _own_transaction(found[0])
    wei = request.amount_wei if shown.success else None
    value_wei = row.value_wei if isinstance(row, PayoutTransaction) else request.amount_wei
    return shapes.TransactionRequests(
        tx_hash=tx_hash,
        purpose=shown.purpose,
        batch_id=None,
        block_number=row.block_number,
        value_wei=value_wei if shown.success else None,
        requests_wei=wei,
        items=[] if wei is None else [shapes.RequestShare(request.id, request.user_id, wei)],
        next=None,
    )


def _movements(
    context: PoolContext, row: Request, withdrawals: Sequence[Withdrawal], own_hashes: Sequence[str]
) -> list[shapes.LineageMovement]:
    """What the request has moved in the ledger, in order: looked up by each name that it may have used."""
    found = [context.ledger.movement(name) for name in _names(row, withdrawals, own_hashes)]
    moved = [
        shapes.LineageMovement(item.id, item.message_id, item.kind, item.amount_wei, item.created_at)
        for item in found
        if item is not None
    ]
    return sorted(moved, key=lambda item: item.id)


def _names(row: Request, withdrawals: Sequence[Withdrawal], own_hashes: Sequence[str]) -> list[str]:
    if row.kind == RequestKind.STAKE:
        of_stake = (effects.stake_reserve, effects.stake_confirm, effects.stake_release, effects.stake_cancel)
        return [name(row.id) for name in of_stake]
    if row.kind == RequestKind.REWARD_CLAIM:
        return [effects.reward_book(effects.reward_claim(row.id))]
    if row.kind == RequestKind.PAYOUT:
        return [name(row.id) for name in (effects.payout_reserve, effects.payout_return, effects.payout_paid)]
    if row.kind == RequestKind.DEPOSIT:
        return [effects.deposit(tx_hash) for tx_hash in own_hashes]
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
