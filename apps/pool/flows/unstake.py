"""An unstake batch, from its opening to its withdrawal NFTs.

    batched --settle, leave the index--> requesting --(approve)--requestWithdrawals--(the walk stores the NFTs)-->
    completed

Leaving the index happens in the pool's serial lane, so that no rebase is accrued between the last settlement of the
users and the end of their weight. All users are settled by one call, however many they are: a step that made a call
for each could be cut off before its end at every attempt, and would begin anew for ever. A request that did not come to
pass gets its weight back and returns to the queue; what was too much at once returns to be asked for in smaller batches.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from apps.clients.base import CallRefused
from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.flows.engine import Step
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.leases import Advance, Outcome, Park, Wait, extend, reason
from apps.pool.flows.members import Member, members, members_in, requeue_members, requeue_smaller, set_requests
from apps.pool.flows.reserving import MIN_WITHDRAWAL_WEI
from apps.pool.flows.transactions import FAILED, POLL_SEC, TOO_MUCH, failure, follow, stored, waiting, with_transaction
from apps.pool.models import WHOLE_BLOCK, Batch, Walk
from apps.pool.walk.booking import book_reward_events
from apps.pool.walk.lane import walk_lane

PASSING = frozenset({"queue_paused", "protocol_stopped"})
TOO_MANY = frozenset({"too_many_elements", "would_revert"})  # gas grows with the withdrawals asked for
UNLIMITED = 2**256 - 1
MAX_SHORT_WEI = 10**9  # rounding of the operator's own operations; more is no dust
MAX_SETTLEMENTS = 20
RATE = 10**27
AHEAD_SEC = 2.0


def leave_index(context: PoolContext, batch: Batch) -> Outcome:
    """Settle the batch's users, take a loss off their amounts, and take their exiting wei out of the index."""
    number = int(batch.context.get("settlement", 1))
    if number > MAX_SETTLEMENTS:
        return Park(reason("books_behind", "The reward index holds less exiting weight than the batch asks for."))
    found = members(context, batch.id)
    first_request = {member.user_id: member.request_id for member in reversed(found)}
    with (
        walk_lane(context, batch.pool_id) as walk,
        user_lanes(context.sessions, batch.pool_id, first_request, context.settings.lease_sec) as keep_users,
    ):
        if _loss_ahead(context, walk) > MAX_SHORT_WEI:
            why = reason("loss_ahead", "The protocol has lost ETH in a block that the books have not reached yet.")
            return Wait(AHEAD_SEC, why)
        name = f"unstake:{{}}:exit-claim:{batch.id}:{number}"
        settled = [(name.format(request_id), user_id) for user_id, request_id in sorted(first_request.items())]
        context.rewards.claims(batch.pool_id, settled)
        keep_users()
        extend(context.sessions, batch, context.settings.lease_sec)
        extend(context.sessions, walk, context.settings.lease_sec)
        book_reward_events(context, walk, held=frozenset(first_request))
        found = members(context, batch.id)  # a loss has come off their amounts
        small = [member for member in found if member.amount_wei < MIN_WITHDRAWAL_WEI]
        kept = [member for member in found if member.amount_wei >= MIN_WITHDRAWAL_WEI]
        deltas = [
            stake_delta(f"unstake:{member.request_id}:exit:{batch.id}", member.user_id, 0, -member.amount_wei)
            for member in kept
        ]
        try:
            context.rewards.stake_deltas(batch.pool_id, deltas)
        except CallRefused as refusal:
            if refusal.code != "insufficient_stake":
                raise
            return Advance("batched", {"context": {**batch.context, "settlement": number + 1}}, run_in_sec=0.5)
        _return_small(context, batch, small)
    values = {"amount_wei": sum(member.amount_wei for member in kept), "request_count": len(kept)}
    return Advance(
        "requesting" if kept else "failed",
        values,
        reason=None if kept else reason("lost_to_slashing", "Nothing was left to request."),
        run_in_sec=0.0 if kept else None,
        write=lambda session: _write_left(session, batch, small),
        wake=(("tasks.batches.advance", batch.id),),
    )


def request(context: PoolContext, batch: Batch) -> Outcome:
    """Approve if the allowance is short, send the one requestWithdrawals, and follow it."""
    if stored(batch, "request") is None:
        return _build_request(context, batch)
    sent = follow(context, batch, "request")
    if sent["status"] == "confirmed":
        context.publish("tasks.walk.run_pool", batch.pool_id)
        return Wait(2 * POLL_SEC)
    if sent["status"] == "conflict":
        return Park(reason("conflict", "The signing key was used by somebody else; see the relayer's message."))
    if sent["status"] in FAILED:
        code, detail = failure(sent)
        too_much = sent["status"] == "rejected" and code in TOO_MUCH and len(members(context, batch.id)) > 1
        return restore(context, batch, code, detail, requeue_smaller if too_much else requeue_members)
    return waiting(sent)


UNSTAKE_STEPS: dict[str, Step] = {"batched": leave_index, "requesting": request}


def _loss_ahead(context: PoolContext, walk: Walk) -> int:
    """Wei that the operator's shares have lost on chain since the last block that is booked as a whole.

    A slashing is on chain some time before it is at the money horizon. Whoever left the index in between would be paid
    in full at the expense of those who stay.
    """
    booked = walk.cursor_block if walk.cursor_log_index >= WHOLE_BLOCK else walk.cursor_block - 1
    rate_then = int(context.protocols.state(booked)["share_rate"])
    rate_now = int(context.protocols.state()["share_rate"])
    return (rate_then - rate_now) * walk.operator_shares // RATE


def _build_request(context: PoolContext, batch: Batch) -> Outcome:
    items = _items(members(context, batch.id), int(batch.context.get("short_wei", 0)))
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
    if stored(batch, "approve") is not None:
        follow(context, batch, "approve")  # mined, or the request could not be built: its hash is kept with the batch
    return Advance(
        "requesting",
        {"context": with_transaction(batch, "request", unsigned, elements=unsigned["elements"])},
        wake=(("tasks.batches.advance", batch.id),),
    )


def _items(found: list[Member], short_wei: int) -> list[dict[str, str]]:
    """What to request for whom; the few wei that rounding has left the operator short come off the largest."""
    largest = max(found, key=lambda member: (member.amount_wei, member.request_id)).request_id
    return [
        {
            "reference": member.request_id,
            "amount_wei": str(member.amount_wei - (short_wei if member.request_id == largest else 0)),
        }
        for member in found
    ]


def _shorten(context: PoolContext, batch: Batch, refusal: CallRefused) -> Outcome:
    missing = int(next(iter(refusal.errors.get("missing_wei", ["0"]))))
    short = int(batch.context.get("short_wei", 0)) + missing
    if missing <= 0 or short > MAX_SHORT_WEI:
        return Park(reason("steth_insufficient", f"The operator's stETH is {short} wei short of the requests."))
    found = members(context, batch.id)
    if max(member.amount_wei for member in found) - short < MIN_WITHDRAWAL_WEI:
        return _stay(context, batch, found)
    return Advance("requesting", {"context": {**batch.context, "short_wei": short}})


def _approve(context: PoolContext, batch: Batch) -> Outcome:
    """One approval for good: the spender is Lido's queue, and the policy of the relayer lets no other be approved."""
    if stored(batch, "approve") is None:
        unsigned = context.protocols.build_approve(UNLIMITED)
        return Advance("requesting", {"context": with_transaction(batch, "approve", unsigned)})
    sent = follow(context, batch, "approve")
    if sent["status"] in FAILED:
        return restore(context, batch, *failure(sent))
    if sent["status"] == "conflict":
        return Park(reason(*failure(sent)))
    return waiting(sent)


def restore(
    context: PoolContext,
    batch: Batch,
    code: str,
    detail: str,
    requeue: Callable[[Session, Batch, dict[str, Any]], None] = requeue_members,
) -> Advance:
    """Back into the index and back to the queue. The restoring delta's id is the batch's, so it happens once."""
    why = reason(code, detail)
    deltas = [
        stake_delta(f"unstake:{member.request_id}:restore:{batch.id}", member.user_id, 0, member.amount_wei)
        for member in members(context, batch.id)
    ]
    context.rewards.stake_deltas(batch.pool_id, deltas)
    return Advance("failed", reason=why, run_in_sec=None, write=lambda session: requeue(session, batch, why))


def _stay(context: PoolContext, batch: Batch, found: list[Member]) -> Advance:
    """Nobody's amount can spare the few wei that are missing and stay requestable: all of it is staked again."""
    name = "unstake:{}:too-small:" + batch.id
    context.rewards.stake_deltas(
        batch.pool_id,
        [stake_delta(name.format(row.request_id), row.user_id, row.amount_wei) for row in found],
    )
    context.ledger.post_batch(
        [
            movement(name.format(row.request_id), "unstake_cancel", batch.pool_id, row.user_id, row.amount_wei)
            for row in found
        ]
    )
    why = reason("amount_too_small", "Rounding left less than can be requested; it is staked again.")

    def write(session: Session) -> None:
        ids = [row.request_id for row in found]
        set_requests(session, ids, status="failed", reason=why, batch_id=None)
        record_events(session, ids)

    return Advance("failed", reason=why, run_in_sec=None, write=write)


def _return_small(context: PoolContext, batch: Batch, small: list[Member]) -> None:
    """What a loss has left below the queue's minimum goes back to staked; an amount of nothing has nothing to move."""
    rows = [member for member in small if member.amount_wei > 0]
    name = "unstake:{}:too-small:" + batch.id
    deltas = [
        stake_delta(name.format(member.request_id), member.user_id, member.amount_wei, -member.amount_wei)
        for member in rows
    ]
    context.rewards.stake_deltas(batch.pool_id, deltas)
    context.ledger.post_batch(
        [
            movement(name.format(member.request_id), "unstake_cancel", batch.pool_id, member.user_id, member.amount_wei)
            for member in rows
        ]
    )


def _write_left(session: Session, batch: Batch, small: list[Member]) -> None:
    ids = [member.request_id for member in small]
    if ids:
        why = reason("lost_to_slashing", "A slashing left less than can be requested; the rest is staked again.")
        set_requests(session, ids, status="failed", reason=why, batch_id=None)
    left = [member.request_id for member in members_in(session, batch.id)]
    set_requests(session, left, status="requesting")
    record_events(session, [*ids, *left])
