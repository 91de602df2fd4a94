"""What every booking of the walk ends with: the cursor moves, a batch ends; and what it reads before, the item's receipt."""

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.shapes.protocols import LidoReceipt, ReceiptClaim, ReceiptRequest
from apps.common.database import transaction
from apps.flow.lease import flow_event
from apps.pool.context import PoolContext
from apps.pool.flows.transactions import refresh_open_transactions
from apps.pool.models import Batch, BatchTransaction, Walk
from apps.pool.states import UNDER_WAY, BatchKind, BatchStatus, TransactionStatus
from apps.pool.walk.booking import Item, WalkHalted, write_walk


def pass_item(
    context: PoolContext,
    session: Session,
    walk: Walk,
    item: Item,
    /,
    *,
    shares: int = 0,
    operations: int = 0,
    **values: Any,
) -> None:
    """Move the walk past an item, with its sums; one that is booked out of order leaves the walk where it stands."""
    place = {
        "cursor_block": item.block_number,
        "cursor_log_index": item.log_index,
        "cursor_block_hash": item.block_hash,
    }
    write_walk(
        context,
        session,
        walk,
        **({} if item.out_of_order else place),
        operator_shares=walk.operator_shares + shares,
        operations_since_dust=walk.operations_since_dust + operations,
        **values,
    )


def complete_batch(session: Session, batch: Batch, item: Item) -> None:
    """End a batch whatever its own step is doing: that step's checkpoint then finds its lease gone."""
    session.execute(
        update(Batch)
        .where(Batch.id == batch.id)
        .values(
            status=BatchStatus.COMPLETED,
            reason=None,
            parked_status=None,
            next_run_at=None,
            lease_token=None,
            lease_until=None,
            updated_at=func.clock_timestamp(),
        ),
        execution_options={"synchronize_session": False},
    )
    session.execute(
        update(BatchTransaction)
        .where(
            BatchTransaction.batch_id == batch.id,
            BatchTransaction.status.in_(UNDER_WAY),
        )
        .values(status=TransactionStatus.CONFIRMED),
        execution_options={"synchronize_session": False},
    )
    # The walk may be quicker than the batch's own look at the relayer: the item knows the hash.
    session.execute(
        update(BatchTransaction)
        .where(
            BatchTransaction.batch_id == batch.id,
            BatchTransaction.purpose == item.kind,
            BatchTransaction.tx_hash.is_(None),
        )
        .values(tx_hash=item.tx_hash),
        execution_options={"synchronize_session": False},
    )
    session.add(flow_event(batch, "completed", BatchStatus.COMPLETED, None))


def batch_of(context: PoolContext, walk: Walk, item: Item, kind: BatchKind) -> Batch:
    """The batch of this pool that sent an item's transaction; asks the relayer for hashes where none is known to have."""
    for fresh in (False, True):
        if fresh:
            refresh_open_transactions(context, walk.id)
        with transaction(context.sessions) as session:
            batch = session.scalars(
                select(Batch)
                .join(BatchTransaction, BatchTransaction.batch_id == Batch.id)
                .where(BatchTransaction.tx_hash == item.tx_hash, Batch.pool_id == walk.id, Batch.kind == kind)
            ).one_or_none()
        if batch is not None:
            return batch
    raise WalkHalted(f"unknown_{item.kind}", f"No batch of this pool sent {item.tx_hash}.")


def request_log(context: PoolContext, item: Item) -> tuple[ReceiptRequest, int, int]:
    """The WithdrawalRequested of a share transfer to the queue, its place among its transaction's, and their number."""
    logs = sorted(_receipt(context, item).withdrawal_requests, key=lambda log: log.log_index)
    # Each element's share transfer stands before its WithdrawalRequested in the receipt.
    for position, log in enumerate(logs):
        if log.log_index > item.log_index:
            return log, position, len(logs)
    raise WalkHalted("request_mismatch", f"The receipt of {item.tx_hash} shows no withdrawal for its shares.")


def claim_log(context: PoolContext, item: Item) -> ReceiptClaim:
    """The WithdrawalClaimed of a claim item."""
    for log in _receipt(context, item).withdrawal_claims:
        if log.log_index == item.log_index:
            return log
    raise WalkHalted("receipt_missing", f"The receipt of {item.tx_hash} does not show the claim that was walked.")


def shares_mismatch(walk: Walk, found: int, pooled_wei: int, total_shares: int) -> WalkHalted:
    """The halt where the operator's shares are not those walked, with the difference and what it is worth."""
    difference = found - walk.operator_shares
    return WalkHalted(
        "shares_mismatch",
        f"The operator holds {found} shares, the walk has met {walk.operator_shares}.",
        shares=str(difference),
        amount_wei=str(abs(difference) * pooled_wei // total_shares),
    )


def _receipt(context: PoolContext, item: Item) -> LidoReceipt:
    receipt = context.protocols.receipt(item.tx_hash)
    if receipt is None:
        raise WalkHalted("receipt_missing", f"The chain has no receipt of {item.tx_hash}, whose log was walked.")
    return receipt
