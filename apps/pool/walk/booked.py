"""Whether an item of the share history is booked already, told from what its booking leaves behind."""

from sqlalchemy import select

from apps.clients.shapes.history import HistoryItem
from apps.common.database import transaction
from apps.common.errors import InvalidInput
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.errors import ItemBooked
from apps.pool.flows.withdrawal_claim import is_usual
from apps.pool.models import Batch, BatchTransaction, CompanyWithdrawal, Resolution, Walk, Withdrawal
from apps.pool.states import BatchStatus, ResolutionStatus


def missed_item(context: PoolContext, pool_id: str, block_number: int, log_index: int) -> HistoryItem:
    """The item at a place that the walk has passed and that is not booked.

    Raises `InvalidInput` where the history has none there, or the walk has not come there yet, and `ItemBooked`.
    """
    with transaction(context.sessions) as session:
        walk = session.get(Walk, pool_id)
    if walk is None or (block_number, log_index) > (walk.cursor_block, walk.cursor_log_index):
        raise InvalidInput(errors={"block_number": ["The walk has not come there yet; it books the item by itself."]})
    items = context.protocols.history(f"{block_number}:{log_index - 1}", 1).items
    if not items or (items[0].block_number, items[0].log_index) != (block_number, log_index):
        raise InvalidInput(errors={"log_index": ["The history has no item there; rescan it first."]})
    item = items[0]
    if is_booked(context, pool_id, item):
        raise ItemBooked
    return item


def is_booked(context: PoolContext, pool_id: str, item: HistoryItem) -> bool:
    """Whether this item's effects are in the books, whatever block it stood in when they were posted."""
    with transaction(context.sessions) as session:
        decided = select(Resolution.id).where(
            Resolution.pool_id == pool_id,
            Resolution.tx_hash == item.tx_hash,
            Resolution.halt["kind"].astext == item.kind,
            Resolution.status == ResolutionStatus.APPLIED,
            Resolution.action.in_(("adopt_as_company", "book_loss")),
        )
        as_decided = session.scalar(decided.limit(1)) is not None
    if as_decided and (item.kind != "claim" or not is_usual(context, item)):
        return True
    if item.kind == "rebase":
        name = effects.rebase_book(item.block_number, item.log_index)
        assert item.rebase is not None  # its kind says so
        return item.rebase.reward_wei == 0 or context.ledger.movement(name) is not None
    if item.kind == "foreign_in":
        name = effects.donation(item.block_number, item.log_index)
        return not item.amount_wei or context.ledger.movement(name) is not None
    if item.kind == "claim":
        return _is_paid(context, item)
    with transaction(context.sessions) as session:
        done = session.scalar(
            select(Batch.id)
            .join(BatchTransaction, BatchTransaction.batch_id == Batch.id)
            .where(
                BatchTransaction.tx_hash == item.tx_hash,
                BatchTransaction.purpose == item.kind,
                Batch.pool_id == pool_id,
                Batch.status == BatchStatus.COMPLETED,
            )
        )
    return done is not None


def _is_paid(context: PoolContext, item: HistoryItem) -> bool:
    receipt = context.protocols.receipt(item.tx_hash)
    claims = [] if receipt is None else receipt.withdrawal_claims
    found = [log for log in claims if log.log_index == item.log_index]
    if not found:
        return False
    number = found[0].withdrawal_id
    with transaction(context.sessions) as session:
        users, companys = session.get(Withdrawal, number), session.get(CompanyWithdrawal, number)
    if users is not None:
        return users.paid_wei is not None
    if companys is not None:
        return companys.paid_wei is not None
    return context.ledger.movement(effects.company_claim(number)) is not None
