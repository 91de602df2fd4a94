"""An unstake, from the POST to the withdrawal NFTs; several share one request to Lido's queue. `withdrawal_claim` goes on.

    request  reserving --(settle; ledger and index set the stETH aside)--> queued --(cancel)--> cancelled
    batch    batched --(settle; leave the index)--> requesting --(approve)--requestWithdrawals--(the walk stores the NFTs)-->
             completed; its requests are then waiting

Batches are opened in `batching`. Leaving the index happens in the pool's serial lane, so that no rebase is accrued between
the last settlement of the users and the end of their weight. All users are settled by one call, however many they are: a
step that made a call for each could be cut off before its end at every attempt, and would begin anew each time. A request
that did not come to pass gets its weight back and returns to the queue; what was too much at once returns to be asked for
in smaller batches.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from apps.clients.base import CallRefused
from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.clients.shapes.protocols import WithdrawalItem
from apps.common.database import one_of, transaction
from apps.ethereum.constants import MIN_WITHDRAWAL_WEI, RAY
from apps.flow.lease import extend
from apps.flow.outcome import Advance, Outcome, Park, Wait
from apps.flow.row import Reason, reason
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.errors import AmountTooLarge, AmountTooSmall, InsufficientBalance
from apps.pool.feed import change_requests
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.limits import MAX_UNSTAKE_WEI, TOO_MUCH_TO_UNSTAKE
from apps.pool.flows.members import (
    Member,
    members,
    move_members,
    requeue_members,
    requeue_smaller,
)
from apps.pool.flows.reward_claim import claim_rewards, loss_first
from apps.pool.flows.stake import queued, rejected
from apps.pool.flows.transactions import (
    POLL_SEC,
    Confirmed,
    Failed,
    follow,
    store,
    stored,
    wait_for_walk,
)
from apps.pool.models import WHOLE_BLOCK, Batch, BatchElement, ProtocolMetric, Request, Walk, Withdrawal
from apps.pool.states import BatchKind, BatchStatus, RequestStatus
from apps.pool.walk.booking import Item, WalkHalted, post_effects, shares_of
from apps.pool.walk.lane import walk_lane
from apps.pool.walk.passing import batch_of, complete_batch, pass_item, request_logs
from apps.pool.walk.rewards import book_reward_events

MAX_RESERVATIONS = 100  # at 0.3 s each: half a minute for bookings under way to arrive
PASSING = frozenset({"queue_paused", "protocol_stopped"})
TOO_MANY = frozenset({"too_many_elements", "would_revert"})  # gas grows with the withdrawals asked for
UNLIMITED = 2**256 - 1
MAX_SHORT_WEI = 10**9  # rounding of the operator's own operations; more is no dust
MAX_SETTLEMENTS = 20
AHEAD_SEC = 2.0

Requeue = Callable[[Session, Batch, Reason], None]


def reserve(context: PoolContext, request: Request, *, fresh: bool = False) -> Outcome:
    """Settle what is pending, then move the amount out of staked: ledger first, as it is a decrease. `fresh`: this is the
    request's first run, so that no earlier one can have reserved anything.

    Between the two services a slashing may settle into the position. The reservation is then undone and tried again
    under the next number, against what the position is worth by then.
    """
    number = request.reservation
    if number > MAX_RESERVATIONS:
        return Park(reason("books_behind", "Ledger and reward index disagree about this user; see the reconciliation."))
    if claim_rewards(context, request, effects.unstake_settle(request.id, number)) is None:
        return loss_first()
    position = context.rewards.position(request.pool_id, request.user_id)
    worth = position.staked_wei
    reservation_id = effects.unstake_start(request.id, number)
    # One made by an earlier run counts: "max" may be worth something else by now.
    known = None if fresh else context.ledger.movement(reservation_id)
    amount = worth if request.amount_wei is None else request.amount_wei
    if known is not None:
        amount = known.amount_wei
    else:
        refused = _not_reservable(amount, worth)
        if refused is not None:
            return refused
    try:
        posted = context.ledger.post_movement(reservation_id, "unstake_start", request.pool_id, request.user_id, amount)
    except CallRefused as refusal:
        # The index agreed a moment ago, so the books are behind it: a stake or claim of this user is being booked.
        if refusal.code != InsufficientBalance.code:
            raise
        return Advance(RequestStatus.RESERVING, {"reservation": number + 1}, run_in_sec=0.3)
    amount = posted.amount_wei
    try:
        context.rewards.stake_deltas(request.pool_id, [stake_delta(reservation_id, request.user_id, -amount, amount)])
    except CallRefused as refusal:
        if refusal.code != "insufficient_stake":
            raise
        context.ledger.post_movement(
            effects.unstake_undo(request.id, number), "unstake_cancel", request.pool_id, request.user_id, amount
        )
        return Advance(RequestStatus.RESERVING, {"reservation": number + 1}, run_in_sec=0.1)
    return queued(amount)


def cancel(context: PoolContext, request: Request) -> Outcome:
    """Stake everything again. The index goes first: what it refuses must not be unbooked."""
    assert request.amount_wei is not None  # it is queued, so the amount is known
    if request.amount_wei > 0:  # a slashing may have taken all of it: nothing is left to move
        name = effects.unstake_cancel(request.id)
        delta = stake_delta(name, request.user_id, request.amount_wei, -request.amount_wei)
        context.rewards.stake_deltas(request.pool_id, [delta])
        context.ledger.post_movement(name, "unstake_cancel", request.pool_id, request.user_id, request.amount_wei)
    return Advance(RequestStatus.CANCELLED, {"eligible_at": None}, run_in_sec=None)


def leave_index(context: PoolContext, batch: Batch) -> Outcome:
    """Settle the batch's users, take a loss off their amounts, and take their exiting wei out of the index."""
    if batch.settlement > MAX_SETTLEMENTS:
        return Park(reason("books_behind", "The reward index holds less exiting weight than the batch asks for."))
    found = members(context, batch.id)
    first_request = {member.user_id: member.request_id for member in reversed(found)}
    with (
        walk_lane(context, batch.pool_id) as walk,
        user_lanes(context, batch.pool_id, first_request) as keep_users,
    ):
        if _loss_ahead(context, walk) > MAX_SHORT_WEI:
            why = reason("loss_ahead", "The protocol has lost ETH in a block that the books have not reached yet.")
            return Wait(AHEAD_SEC, why)
        settled = [
            (effects.unstake_exit_claim(request_id, batch.id, batch.settlement), user_id)
            for user_id, request_id in sorted(first_request.items())
        ]
        context.rewards.claims(batch.pool_id, settled)
        keep_users()
        extend(context.sessions, batch, context.settings.lease_sec)
        extend(context.sessions, walk, context.settings.lease_sec)
        book_reward_events(context, walk, held=frozenset(first_request))
        found = members(context, batch.id)  # a loss has come off their amounts
        small = [member for member in found if member.amount_wei < MIN_WITHDRAWAL_WEI]
        kept = [member for member in found if member.amount_wei >= MIN_WITHDRAWAL_WEI]
        deltas = [
            stake_delta(effects.unstake_exit(member.request_id, batch.id), member.user_id, 0, -member.amount_wei)
            for member in kept
        ]
        try:
            context.rewards.stake_deltas(batch.pool_id, deltas)
        except CallRefused as refusal:
            if refusal.code != "insufficient_stake":
                raise
            return Advance(BatchStatus.BATCHED, {"settlement": batch.settlement + 1}, run_in_sec=0.5)
        # What a loss has left below the queue's minimum is staked again; an amount of nothing has nothing to move.
        _stake_again(context, batch, [member for member in small if member.amount_wei > 0], in_index=True)
    values = {"amount_wei": sum(member.amount_wei for member in kept), "request_count": len(kept)}
    return Advance(
        BatchStatus.REQUESTING if kept else BatchStatus.FAILED,
        values,
        reason=None if kept else reason("lost_to_slashing", "Nothing was left to request."),
        run_in_sec=0.0 if kept else None,
        write=lambda session: _write_left(session, batch, small),
    )


def request(context: PoolContext, batch: Batch) -> Outcome:
    """Approve if the allowance is short, send the one requestWithdrawals, and follow it."""
    if stored(context, batch, "request") is None:
        return _build_request(context, batch)
    sent = follow(context, batch, "request")
    if isinstance(sent, Confirmed):
        return wait_for_walk(context, batch)
    if not isinstance(sent, Failed):
        return sent
    smaller = sent.too_much and len(members(context, batch.id)) > 1
    return restore(context, batch, sent.code, sent.detail, requeue_smaller if smaller else requeue_members)


UNSTAKE_STEPS = {BatchStatus.BATCHED: leave_index, BatchStatus.REQUESTING: request}


def store_withdrawals(context: PoolContext, walk: Walk, items: Sequence[Item]) -> None:
    """The walk meets elements of our request, next to each other: an NFT each. With the last one of the request the batch is
    done and its requests wait."""
    batch = batch_of(context, walk, items[0], BatchKind.UNSTAKE)
    logs, count = request_logs(context, items)
    asked = elements_of(context, batch)
    if count != len(asked) or any(log.amount_wei != asked[place].amount_wei for log, place in logs):
        raise WalkHalted("request_mismatch", f"The withdrawals of batch {batch.id} are not those that were asked for.")
    last = logs[-1][1] == count - 1
    if last:
        _book_cuts(context, walk, batch, asked)
    rows = [
        {
            "withdrawal_id": log.withdrawal_id,
            "pool_id": walk.id,
            "request_id": asked[place].request_id,
            "batch_id": batch.id,
            "amount_wei": log.amount_wei,
            "shares": log.shares,
        }
        for log, place in logs
    ]
    with transaction(context.sessions) as session:
        session.execute(insert(Withdrawal), rows)
        pass_item(
            context,
            session,
            walk,
            items[-1],
            shares=-sum(shares_of(item) for item in items),
            requested_wei=walk.requested_wei + sum(log.amount_wei for log, _ in logs),
            operations=len(items),
        )
        if last:
            complete_batch(session, batch, items[-1])
            move_members(session, batch, RequestStatus.WAITING, reason=None)


def restore(context: PoolContext, batch: Batch, code: str, detail: str, requeue: Requeue = requeue_members) -> Advance:
    """Back into the index and back to the queue. The restoring delta's name is the batch's, so it happens once."""
    why = reason(code, detail)
    deltas = [
        stake_delta(effects.unstake_restore(member.request_id, batch.id), member.user_id, 0, member.amount_wei)
        for member in members(context, batch.id)
    ]
    context.rewards.stake_deltas(batch.pool_id, deltas)
    return Advance(BatchStatus.FAILED, reason=why, run_in_sec=None, write=lambda session: requeue(session, batch, why))


def elements_of(context: PoolContext, batch: Batch) -> Sequence[BatchElement]:
    """What the batch has asked Lido for, in the order of the call."""
    with transaction(context.sessions) as session:
        return session.scalars(
            select(BatchElement).where(BatchElement.batch_id == batch.id).order_by(BatchElement.position)
        ).all()


def _not_reservable(amount: int, worth: int) -> Advance | None:
    if amount > worth or worth == 0:
        return rejected(InsufficientBalance.code, f"The position is worth {worth} wei of staked ETH.")
    if amount < MIN_WITHDRAWAL_WEI:
        return rejected(AmountTooSmall.code, f"The position is worth {worth} wei; the least is {MIN_WITHDRAWAL_WEI}.")
    if amount > MAX_UNSTAKE_WEI:
        return rejected(AmountTooLarge.code, f"This is {amount} wei. {TOO_MUCH_TO_UNSTAKE}")
    return None


def _loss_ahead(context: PoolContext, walk: Walk) -> int:
    """Wei that the operator's shares have lost on chain since the last block that is booked as a whole.

    A slashing is on chain some time before it is at the money horizon. A user who left the index in between would be paid
    in full at the expense of those who stay.
    """
    booked = walk.cursor_block if walk.cursor_log_index >= WHOLE_BLOCK else walk.cursor_block - 1
    with transaction(context.sessions) as session:
        rate_then = session.scalar(
            select(ProtocolMetric.share_rate).where(
                ProtocolMetric.pool_id == walk.id, ProtocolMetric.block_number == booked
            )
        )
    if rate_then is None:  # the walk stands within a block, and closed none just before it
        rate_then = context.protocols.state(booked).share_rate
    # A look of its own, of now: that no loss is ahead is what the exit rests on.
    rate_now = context.protocols.state().share_rate
    return (rate_then - rate_now) * walk.operator_shares // RAY


def _build_request(context: PoolContext, batch: Batch) -> Outcome:
    items = _items(members(context, batch.id), batch.short_wei)
    try:
        unsigned = context.protocols.build_request_withdrawals(items)
    except CallRefused as refusal:
        if refusal.code == "allowance_insufficient":
            return _approve(context, batch)
        if refusal.code == "steth_insufficient":
            return _shorten(context, batch, refusal)
        if refusal.code in PASSING:
            return restore(context, batch, refusal.code, refusal.detail)
        if refusal.code in TOO_MANY and len(items) > 1:
            return restore(context, batch, refusal.code, refusal.detail, requeue_smaller)
        return Park(reason(refusal.code, refusal.detail))
    if stored(context, batch, "approve") is not None:
        follow(context, batch, "approve")  # mined, or the request could not be built: its hash is kept with the batch

    def write(session: Session) -> None:
        store(session, batch, "request", unsigned)
        for position, element in enumerate(unsigned.elements):
            session.add(
                BatchElement(
                    batch_id=batch.id,
                    position=position,
                    request_id=element.reference,
                    amount_wei=element.amount_wei,
                )
            )

    return Advance(BatchStatus.REQUESTING, write=write)


def _items(found: list[Member], short_wei: int) -> list[WithdrawalItem]:
    """What to request for whom; the few wei that rounding has left the operator short come off the largest."""
    largest = max(found, key=lambda member: (member.amount_wei, member.request_id)).request_id
    return [
        WithdrawalItem(
            reference=member.request_id,
            amount_wei=member.amount_wei - (short_wei if member.request_id == largest else 0),
        )
        for member in found
    ]


def _shorten(context: PoolContext, batch: Batch, refusal: CallRefused) -> Outcome:
    missing = int(next(iter(refusal.errors.get("missing_wei", ["0"]))))
    short = batch.short_wei + missing
    if missing <= 0 or short > MAX_SHORT_WEI:
        return Park(reason("steth_insufficient", f"The operator's stETH is {short} wei short of the requests."))
    found = members(context, batch.id)
    if max(member.amount_wei for member in found) - short < MIN_WITHDRAWAL_WEI:
        return _stay(context, batch, found)
    return Advance(BatchStatus.REQUESTING, {"short_wei": short})


def _approve(context: PoolContext, batch: Batch) -> Outcome:
    """One approval for good: the spender is Lido's queue, and the policy of the relayer lets no other be approved."""
    if stored(context, batch, "approve") is None:
        unsigned = context.protocols.build_approve(UNLIMITED)
        return Advance(BatchStatus.REQUESTING, write=lambda session: store(session, batch, "approve", unsigned))
    sent = follow(context, batch, "approve")
    if isinstance(sent, Failed):
        return restore(context, batch, sent.code, sent.detail)
    # Mined and not enough all the same: it is looked at again.
    return Wait(POLL_SEC) if isinstance(sent, Confirmed) else sent


def _stay(context: PoolContext, batch: Batch, found: list[Member]) -> Advance:
    """No member's amount stays above the queue's minimum less the wei that rounding left missing: the whole batch is staked
    again."""
    _stake_again(context, batch, found, in_index=False)
    why = reason("amount_too_small", "Rounding left less than can be requested; it is staked again.")

    def write(session: Session) -> None:
        move_members(session, batch, RequestStatus.FAILED, reason=why, batch_id=None)

    return Advance(BatchStatus.FAILED, reason=why, run_in_sec=None, write=write)


def _stake_again(context: PoolContext, batch: Batch, found: list[Member], *, in_index: bool) -> None:
    """Move members' amounts back to staked. `in_index`: their exiting weight has not left the index yet."""
    names = {row.request_id: effects.unstake_too_small(row.request_id, batch.id) for row in found}
    deltas = [
        stake_delta(names[row.request_id], row.user_id, row.amount_wei, -row.amount_wei if in_index else 0)
        for row in found
    ]
    context.rewards.stake_deltas(batch.pool_id, deltas)
    context.ledger.post_batch(
        [movement(names[row.request_id], "unstake_cancel", batch.pool_id, row.user_id, row.amount_wei) for row in found]
    )


def _write_left(session: Session, batch: Batch, small: list[Member]) -> None:
    if small:
        why = reason("lost_to_slashing", "A slashing left less than can be requested; the rest is staked again.")
        gone = one_of(Request.id, [member.request_id for member in small])
        change_requests(session, gone, status=RequestStatus.FAILED, reason=why, batch_id=None)
    move_members(session, batch, RequestStatus.REQUESTING)


def _book_cuts(context: PoolContext, walk: Walk, batch: Batch, asked: Sequence[BatchElement]) -> None:
    """Where the operator's stETH was a few wei short, the difference goes to @rounding, visible and bounded."""
    faces: dict[str, int] = {}
    for element in asked:
        faces[element.request_id] = faces.get(element.request_id, 0) + element.amount_wei
    rows = [
        movement(
            effects.unstake_cut(member.request_id),
            "unstake_cut",
            walk.id,
            member.user_id,
            member.amount_wei - faces.get(member.request_id, 0),
        )
        for member in members(context, batch.id)
        if member.amount_wei != faces.get(member.request_id, 0)
    ]
    post_effects(context, walk, rows)
