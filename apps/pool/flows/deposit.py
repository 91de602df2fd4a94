"""A deposit by its transaction, from the POST to its end.

    booking --(ledger: @custody to available, under a name of the transaction's hash)--> completed

The POST has found the transaction on chain, at or below the money horizon, and taken its hash for this request alone. The
ledger's name is the hash's, so that no two requests, of whatever database, can book it twice.
"""

from sqlalchemy import select

from apps.clients.base import CallRefused
from apps.common.database import transaction
from apps.flow.outcome import Advance, Outcome
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.stake import CONFLICT, rejected
from apps.pool.models import Deposit, Request
from apps.pool.states import RequestKind, RequestStatus
from apps.pool.walk.booking import REUSED


def book(context: PoolContext, request: Request) -> Outcome:
    """Book what the transaction brought."""
    with transaction(context.sessions) as session:
        tx_hash = session.scalars(select(Deposit.tx_hash).where(Deposit.request_id == request.id)).one()
    name = effects.deposit(tx_hash)
    assert request.amount_wei is not None  # the chain has told it
    try:
        context.ledger.post_movement(
            name, "deposit", request.pool_id, request.user_id, request.amount_wei, reference=tx_hash
        )
    except CallRefused as refusal:
        if refusal.code == REUSED:
            return rejected("deposit_posted", f"{name} stands in the ledger already, for another user or amount.")
        if refusal.status != CONFLICT:
            raise
        return rejected(refusal.code, refusal.detail)
    return Advance(RequestStatus.COMPLETED, {"settled_wei": request.amount_wei}, run_in_sec=None)


DEPOSIT_STEPS = {(RequestKind.DEPOSIT, RequestStatus.BOOKING): book}
