"""The first and the last money step of a request, run inside POST and, after a crash or an outage, by its flow.

stake: reserving -> queued.  unstake: reserving -> queued.  reward_claim: settling -> completed.
A queued request with ``intent`` cancel: queued -> cancelled.

Each step may be run again at any point: its effects carry message ids derived from the request.
"""

from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.rewards import stake_delta
from apps.common.database import is_transient, transaction
from apps.pool.context import PoolContext
from apps.pool.errors import AmountTooLarge, AmountTooSmall, InsufficientBalance
from apps.pool.feed import record_events
from apps.pool.flows.lanes import LaneBusy, user_lanes
from apps.pool.flows.leases import (
    Advance,
    LeaseLost,
    Outcome,
    Park,
    Wait,
    attempts_used_up,
    back_off,
    checkpoint,
    fault_text,
    reason,
    wait,
)
from apps.pool.flows.limits import MAX_UNSTAKE_WEI, TOO_MUCH_TO_UNSTAKE
from apps.pool.models import Request

log = structlog.get_logger(__name__)

MAX_RESERVATIONS = 100  # at 0.3 s each: half a minute for bookings under way to arrive
CONFLICT = 409
MIN_WITHDRAWAL_WEI = 100  # WithdrawalQueue.MIN_STETH_WITHDRAWAL_AMOUNT


def run_request(context: PoolContext, request: Request) -> None:
    """Run the step of a claimed request and write its outcome; never raises for what a later run can heal."""
    try:
        with user_lanes(context.sessions, request.pool_id, [request.user_id], context.settings.lease_sec):
            # Before the lane was ours a slashing may have come off the amount: what was claimed is out of date.
            request = _as_it_stands(context, request)
            outcome = _step(context, request)
    except LaneBusy:
        outcome = Wait(0.1, request.reason)
    except LeaseLost:
        return
    except Exception as error:
        # Whatever it was, the row must come back: a lease that merely runs out would hide it, and never end.
        if not isinstance(error, CallFailed | CallRefused) and not is_transient(error):
            log.exception("step_failed", request_id=request.id, status=request.status)
        _failed(context, request, error)
        return
    _write(context, request, outcome)


def _as_it_stands(context: PoolContext, request: Request) -> Request:
    with transaction(context.sessions) as session:
        mine = Request.id == request.id, Request.lease_token == request.lease_token
        row = session.scalars(select(Request).where(*mine)).one_or_none()
    if row is None:
        raise LeaseLost(f"request {request.id}")
    return row


def _step(context: PoolContext, request: Request) -> Outcome:
    if request.status == "queued" and request.intent == "cancel":
        return _cancel(context, request)
    steps = {
        ("stake", "reserving"): _reserve_stake,
        ("unstake", "reserving"): _reserve_unstake,
        ("reward_claim", "settling"): _settle_claim,
    }
    return steps[(request.kind, request.status)](context, request)


def _reserve_stake(context: PoolContext, request: Request) -> Outcome:
    assert request.amount_wei is not None
    try:
        context.ledger.post_movement(
            f"stake:{request.id}:reserve", "stake_reserve", request.pool_id, request.user_id, request.amount_wei
        )
    except CallRefused as refusal:
        # Only the books' own verdict ends a request. A wrong key or body says nothing of an earlier try that may have
        # reserved the money.
        if refusal.status != CONFLICT:
            raise
        return _rejection(refusal.code, refusal.detail)
    return Advance("queued", {"queued_at": func.clock_timestamp(), "eligible_at": func.now()}, run_in_sec=None)


def _reserve_unstake(context: PoolContext, request: Request) -> Outcome:
    """Settle what is pending, then move the amount out of staked: ledger first, as it is a decrease.

    Between the two services a slashing may settle into the position. The reservation is then undone and tried again
    under the next number, against what the position is worth by then.
    """
    number = int(request.context.get("reservation", 1))
    if number > MAX_RESERVATIONS:
        return Park(reason("books_behind", "Ledger and reward index disagree about this user; see the reconciliation."))
    claim_id = f"unstake:{request.id}:settle:{number}"
    if not _settle_pending(context, request, claim_id):
        return Wait(0.3, reason("settling_loss", "A loss is being booked first."))
    position = context.rewards.position(request.pool_id, request.user_id)
    worth = int(position["staked_wei"])
    reservation_id = f"unstake:{request.id}:start:{number}"
    amount = worth if request.amount_wei is None else request.amount_wei
    if context.ledger.movement(reservation_id) is None:
        if amount > worth or worth == 0:
            return _rejection(InsufficientBalance.code, f"The position is worth {worth} wei of staked ETH.")
        if amount < MIN_WITHDRAWAL_WEI:
            return _rejection(
                AmountTooSmall.code, f"The position is worth {worth} wei; the least is {MIN_WITHDRAWAL_WEI}."
            )
        if amount > MAX_UNSTAKE_WEI:
            return _rejection(AmountTooLarge.code, f"This is {amount} wei. {TOO_MUCH_TO_UNSTAKE}")
    try:
        posted = context.ledger.post_movement(
            reservation_id,
            "unstake_start",
            request.pool_id,
            request.user_id,
            _reserved(context, reservation_id, amount),
        )
    except CallRefused as refusal:
        # The index agreed a moment ago, so the books are behind it: a stake or claim of this user is being booked.
        if refusal.code != InsufficientBalance.code:
            raise
        return Advance("reserving", {"context": {**request.context, "reservation": number + 1}}, run_in_sec=0.3)
    amount = int(posted["amount_wei"])
    delta = stake_delta(f"unstake:{request.id}:start:{number}", request.user_id, -amount, amount)
    try:
        context.rewards.stake_deltas(request.pool_id, [delta])
    except CallRefused as refusal:
        if refusal.code != "insufficient_stake":
            raise
        context.ledger.post_movement(
            f"unstake:{request.id}:undo:{number}", "unstake_cancel", request.pool_id, request.user_id, amount
        )
        return Advance("reserving", {"context": {**request.context, "reservation": number + 1}}, run_in_sec=0.1)
    values = {"amount_wei": amount, "queued_at": func.clock_timestamp(), "eligible_at": func.now()}
    return Advance("queued", values, run_in_sec=None)


def _reserved(context: PoolContext, reservation_id: str, amount: int) -> int:
    """The amount of a reservation made by an earlier run; "max" may be worth something else by now."""
    found = context.ledger.movement(reservation_id)
    return amount if found is None else int(found["amount_wei"])


def _settle_claim(context: PoolContext, request: Request) -> Outcome:
    claim_id = f"reward-claim:{request.id}"
    claim = context.rewards.claim(claim_id, request.pool_id, request.user_id)
    claimed = int(claim["claimed_wei"])
    if not _book_claim(context, request, claim_id, claimed):
        return Wait(0.3, reason("settling_loss", "A loss is being booked first."))
    return Advance("completed", {"settled_wei": claimed}, run_in_sec=None)


def _settle_pending(context: PoolContext, request: Request, claim_id: str) -> bool:
    claim = context.rewards.claim(claim_id, request.pool_id, request.user_id)
    return _book_claim(context, request, claim_id, int(claim["claimed_wei"]))


def _book_claim(context: PoolContext, request: Request, claim_id: str, claimed_wei: int) -> bool:
    """Book a claim in the ledger; False while the walk still has to.

    A gain is booked here and, under the same id, by the walk's event booker: whoever comes first. A loss may have to be
    taken off queued unstakes too, which only the booker decides.
    """
    booking_id = f"{claim_id}:book"
    if claimed_wei > 0:
        context.ledger.post_movement(booking_id, "reward_compound", request.pool_id, request.user_id, claimed_wei)
        return True
    if claimed_wei == 0 or context.ledger.movement(booking_id) is not None:
        return True
    context.publish("tasks.walk.run", None)
    return False


def _cancel(context: PoolContext, request: Request) -> Outcome:
    """Give everything back. For an unstake the index goes first: what it refuses must not be unbooked."""
    assert request.amount_wei is not None
    if request.amount_wei == 0:
        return Advance("cancelled", run_in_sec=None)  # a slashing has taken all of it: nothing is left to move
    if request.kind == "stake":
        context.ledger.post_movement(
            f"stake:{request.id}:cancel", "stake_release", request.pool_id, request.user_id, request.amount_wei
        )
    else:
        delta = stake_delta(f"unstake:{request.id}:cancel", request.user_id, request.amount_wei, -request.amount_wei)
        context.rewards.stake_deltas(request.pool_id, [delta])
        context.ledger.post_movement(
            f"unstake:{request.id}:cancel", "unstake_cancel", request.pool_id, request.user_id, request.amount_wei
        )
    return Advance("cancelled", run_in_sec=None)


def _rejection(code: str, detail: str) -> Advance:
    return Advance("rejected", reason=reason(code, detail), run_in_sec=None)


def _write(context: PoolContext, request: Request, outcome: Outcome) -> None:
    try:
        with transaction(context.sessions) as session:
            if isinstance(outcome, Wait):
                wait(session, request, outcome)
                return
            if isinstance(outcome, Park):
                _park(session, request, outcome.reason)
                return
            moved = outcome.status != request.status
            values: dict[str, Any] = {"reason": outcome.reason, **outcome.values}
            checkpoint(session, request, status=outcome.status, run_in_sec=outcome.run_in_sec, **values)
            if moved:
                record_events(session, [request.id])
    except LeaseLost:
        return
    if outcome.status == "queued":
        context.publish("tasks.batching.run", None)


def _failed(context: PoolContext, request: Request, error: Exception) -> None:
    try:
        with transaction(context.sessions) as session:
            if attempts_used_up(request, error):
                _park(session, request, reason("attempts_exhausted", fault_text(error)[:300]))
            else:
                back_off(session, request, fault_text(error))
    except LeaseLost:
        return


def _park(session: Session, request: Request, why: dict[str, Any]) -> None:
    kept = {**request.context, "parked_status": request.status}
    checkpoint(session, request, status="needs_attention", run_in_sec=None, reason=why, context=kept)
    record_events(session, [request.id])
