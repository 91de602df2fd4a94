"""A reward claim, from the POST to its end; and the booking of what settling has paid, which unstakes share.

settling --(the index settles what is pending, the ledger books it)--> completed
"""

from apps.flow.outcome import Advance, Outcome, Wait
from apps.flow.row import reason
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.models import Request
from apps.pool.states import RequestStatus

LOSS_FIRST_SEC = 0.3


def settle(context: PoolContext, request: Request) -> Outcome:
    """Claim what the index owes, and book it."""
    claimed_wei = claim_rewards(context, request, effects.reward_claim(request.id))
    if claimed_wei is None:
        return loss_first()
    return Advance(RequestStatus.COMPLETED, {"settled_wei": claimed_wei}, run_in_sec=None)


def claim_rewards(context: PoolContext, request: Request, claim_id: str) -> int | None:
    """Make what is pending for the user principal, in index and ledger; the signed wei, or None while the walk has to book
    a loss first.

    A gain is booked here and, under the same name, by the walk's booking of reward events: whichever comes first. A loss may
    have to be taken off queued unstakes too, which only that booking decides.
    """
    claim = context.rewards.claim(claim_id, request.pool_id, request.user_id)
    claimed_wei = claim.claimed_wei
    booking_id = effects.reward_book(claim_id)
    if claimed_wei > 0:
        context.ledger.post_movement(booking_id, "reward_compound", request.pool_id, request.user_id, claimed_wei)
    elif claimed_wei < 0 and context.ledger.movement(booking_id) is None:
        context.publish("tasks.walk.run", None)
        return None
    return claimed_wei


def loss_first() -> Wait:
    """What `claim_rewards` has to wait for."""
    return Wait(LOSS_FIRST_SEC, reason("settling_loss", "A loss is being booked first."))
