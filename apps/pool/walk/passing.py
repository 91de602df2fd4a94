"""What every booking of the walk ends with: the cursor moves, a batch ends; and what it reads before, the item's receipt."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.shapes.history import HistoryItem
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
    session.execute(
        update(BatchTransaction)
        .where(BatchTransaction.batch_id == batch.id, BatchTransaction.tx_hash == item.tx_hash)
        .values(block_number=item.block_number),
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


def request_logs(context: PoolContext, items: Sequence[Item]) -> tuple[list[tuple[ReceiptRequest, int]], int]:
    """Of share transfers to the queue in one transaction: the WithdrawalRequested of each with its place among the
    transaction's, and how many of those there are."""
    logs = sorted(_receipt(context, items[0]).withdrawal_requests, key=lambda log: log.log_index)
    found = []
    for item in items:
        # Each element's share transfer stands before its WithdrawalRequested in the receipt.
        place = next((place for place, log in enumerate(logs) if log.log_index > item.log_index), None)
        if place is None:
            detail = f"The receipt of {item.tx_hash} shows no withdrawal for its shares."
            raise WalkHalted("request_mismatch", detail)
        found.append((logs[place], place))
    return found, len(logs)


def claim_logs(context: PoolContext, items: Sequence[HistoryItem]) -> list[ReceiptClaim]:
    """The WithdrawalClaimed of each claim item, in the order of the items; each transaction's receipt is read once."""
    claims = {}
    for item in {item.tx_hash: item for item in items}.values():
        claims.update({(item.tx_hash, log.log_index): log for log in _receipt(context, item).withdrawal_claims})
    missing = next((item for item in items if (item.tx_hash, item.log_index) not in claims), None)
    if missing is not None:
        detail = f"The receipt of {missing.tx_hash} does not show the claim that was walked."
        raise WalkHalted("receipt_missing", detail)
    return [claims[item.tx_hash, item.log_index] for item in items]


def claim_log(context: PoolContext, item: HistoryItem) -> ReceiptClaim:
    """The WithdrawalClaimed of a claim item."""
    return claim_logs(context, [item])[0]


def shares_mismatch(walk: Walk, found: int, pooled_wei: int, total_shares: int) -> WalkHalted:
    """The halt where the operator's shares are not those walked, with the difference and what it is worth."""
    difference = found - walk.operator_shares
    return WalkHalted(
        "shares_mismatch",
        f"The operator holds {found} shares, the walk has met {walk.operator_shares}.",
        shares=str(difference),
        amount_wei=str(abs(difference) * pooled_wei // total_shares),
    )


def _receipt(context: PoolContext, item: HistoryItem) -> LidoReceipt:
    receipt = context.protocols.receipt(item.tx_hash)
    if receipt is None:
        raise WalkHalted("receipt_missing", f"The chain has no receipt of {item.tx_hash}, whose log was walked.")
    return receipt
