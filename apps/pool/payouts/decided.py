"""What an approved decision about a parked payout changes at once: the payout is due, and does what was decided."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.flow.row import reason
from apps.pool.errors import PayoutNotMatching
from apps.pool.flows.payout import CONFIRM_PAYOUT, GIVE_BACK, PAID, RELEASE_PAYOUT
from apps.pool.models import PayoutTransaction, Request, Resolution
from apps.pool.states import RequestStatus, ResolutionStatus

PAYOUT_INTENTS = {RELEASE_PAYOUT: GIVE_BACK, CONFIRM_PAYOUT: PAID}


def make_due(session: Session, row: Resolution) -> None:
    """Raises `PayoutNotMatching` where the payout, or the transaction that is said to have paid it, is something else by now."""
    request = session.scalars(
        select(Request).where(Request.id == str(row.effect).split(":")[1]).with_for_update()
    ).one()
    if request.status != RequestStatus.NEEDS_ATTENTION:
        raise PayoutNotMatching(f"The payout is {request.status} by now.")
    why = reason("released", "Ops decided that it had no effect.") if row.action == RELEASE_PAYOUT else None
    if row.action == CONFIRM_PAYOUT:
        _take_transaction(session, str(row.effect), str(row.tx_hash))
    request.intent, request.reason = PAYOUT_INTENTS[row.action], why or request.reason
    request.attempts, request.next_run_at = 0, func.now()
    row.status, row.applied_at = ResolutionStatus.APPLIED, func.clock_timestamp()


def _take_transaction(session: Session, transfer: str, tx_hash: str) -> None:
    """Note which transaction has paid a payout. It pays one: what others were told of it meanwhile comes too late."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(tx_hash))))
    others = PayoutTransaction.tx_hash == tx_hash, PayoutTransaction.message_id != transfer
    if session.scalar(select(PayoutTransaction.message_id).where(*others)) is not None:
        raise PayoutNotMatching("This transaction is another payout's by now.")
    session.execute(
        update(PayoutTransaction).where(PayoutTransaction.message_id == transfer).values(tx_hash=tx_hash),
        execution_options={"synchronize_session": False},
    )
