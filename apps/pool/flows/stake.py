"""A stake, from the POST to its end; several share one submit.

    request  reserving --(ledger sets the ETH aside)--> queued --(cancel)--> cancelled
    batch    batched --(fund)--build--> submitting --send--> confirming --(the walk meets its Submitted log)--> completed

Batches are opened in `batching`. A submit that had no effect, settled so at the money horizon, is read: what passes by
itself (a stake limit, a pause) puts the requests back into the queue, as does what the relayer is not set up for; what is
too much at once goes back to be sent in smaller batches; anything else gives the users their ETH back (`failed`). A
conflict is never retried.
"""

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from apps.clients.base import CallRefused
from apps.clients.ledger import movement
from apps.clients.rewards import stake_delta
from apps.clients.shapes.ledger import NewMovement
from apps.clients.shapes.protocols import UnsignedTransaction
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.ethereum.constants import TRANSFER_GAS
from apps.flow.outcome import Advance, Outcome, Park, Wait
from apps.flow.row import reason
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.members import Member, members, move_members, requeue_members, requeue_smaller
from apps.pool.flows.transactions import (
    POLL_SEC,
    SET_UP,
    Confirmed,
    Failed,
    follow,
    send,
    store,
    stored,
    wait_for_walk,
)
from apps.pool.models import Batch, Request, Walk
from apps.pool.states import BatchKind, BatchStatus, RequestStatus
from apps.pool.walk.booking import Item, WalkHalted, move_stakes, post_effects, shares_of, wei_of
from apps.pool.walk.increasing import increase
from apps.pool.walk.passing import batch_of, complete_batch, pass_item

CONFLICT = 409
PASSING = frozenset({"staking_paused", "stake_limit_exceeded", "protocol_stopped"})
GAS_RESERVE_WEI = 10**16
# The same objects for all requests, so that the engine writes many by one statement.
_CLOCK, _NOW = func.clock_timestamp(), func.now()
MAX_TRIES = 5


def reserve(context: PoolContext, request: Request) -> Outcome:
    """Set the ETH aside in the ledger."""
    try:
        context.ledger.post_movement(
            effects.stake_reserve(request.id), "stake_reserve", request.pool_id, request.user_id, _wei(request)
        )
    except CallRefused as refusal:
        # Only the books' own verdict ends a request. A wrong key or body says nothing of an earlier try that may have
        # reserved the money.
        if refusal.status != CONFLICT:
            raise
        return rejected(refusal.code, refusal.detail)
    return queued()


def cancel(context: PoolContext, request: Request) -> Outcome:
    """Give the ETH back that was set aside."""
    context.ledger.post_movement(
        effects.stake_cancel(request.id), "stake_release", request.pool_id, request.user_id, _wei(request)
    )
    return Advance(RequestStatus.CANCELLED, {"eligible_at": None}, run_in_sec=None)


def build(context: PoolContext, batch: Batch) -> Outcome:
    """Make sure that the operator holds the ETH, and build the submit."""
    missing = _fund(context, batch)
    if missing is not None:
        return missing
    try:
        unsigned = context.protocols.build_submit(batch.amount_wei)
    except CallRefused as refusal:
        if refusal.code in PASSING:
            return requeue(batch, refusal.code, refusal.detail)
        if refusal.code == "operator_underfunded":
            return Wait(5.0, reason("operator_underfunded", refusal.detail))
        return Park(reason(refusal.code, refusal.detail))

    def write(session: Session) -> None:
        store(session, batch, "submit", unsigned)
        move_members(session, batch, RequestStatus.SUBMITTING)

    return Advance(BatchStatus.SUBMITTING, write=write)


def submit(context: PoolContext, batch: Batch) -> Outcome:
    """Hand the stored submit to the relayer."""
    send(context, batch, "submit")
    return Advance(
        BatchStatus.CONFIRMING,
        run_in_sec=POLL_SEC,
        write=lambda session: move_members(session, batch, RequestStatus.CONFIRMING),
    )


def confirm(context: PoolContext, batch: Batch) -> Outcome:
    """Follow the submit until the walk has booked it, or it is settled without effect."""
    sent = follow(context, batch, "submit")
    if isinstance(sent, Confirmed):
        return wait_for_walk(context, batch)
    if not isinstance(sent, Failed):
        return sent
    if sent.passing is not None:
        return requeue(batch, sent.passing, sent.detail)
    if sent.too_much and len(members(context, batch.id)) > 1:
        return _requeue_smaller(batch, sent.code, sent.detail)
    if sent.rejected and (sent.code in SET_UP or sent.code == "daily_value_over_cap"):
        return requeue(batch, sent.code, sent.detail)
    return _give_back(context, batch, sent.code, sent.detail)


STAKE_STEPS = {BatchStatus.BATCHED: build, BatchStatus.SUBMITTING: submit, BatchStatus.CONFIRMING: confirm}


def book_submit(context: PoolContext, walk: Walk, item: Item) -> None:
    """The walk meets our submit: its batch's reserved ETH is staked, in the index first (an increase), then in the books."""
    batch = batch_of(context, walk, item, BatchKind.STAKE)
    amount, shares = wei_of(item), shares_of(item)
    found = members(context, batch.id)
    if sum(member.amount_wei for member in found) != amount:
        raise WalkHalted("submit_mismatch", f"Batch {batch.id} was not the {amount} wei that were submitted.")
    names = {row.request_id: effects.stake_confirm(row.request_id) for row in found}
    with user_lanes(context, walk.id, [member.user_id for member in found]):
        increase(
            found,
            lambda part: move_stakes(
                context, walk, [stake_delta(names[row.request_id], row.user_id, row.amount_wei) for row in part]
            ),
            lambda part: post_effects(
                context, walk, [_confirmed(walk, names[row.request_id], row, item) for row in part]
            ),
        )
        with transaction(context.sessions) as session:
            pass_item(
                context, session, walk, item, shares=shares, submitted_wei=walk.submitted_wei + amount, operations=1
            )
            complete_batch(session, batch, item)
            move_members(session, batch, RequestStatus.COMPLETED, settled_wei=Request.amount_wei, reason=None)


def _confirmed(walk: Walk, name: str, member: Member, item: Item) -> NewMovement:
    return movement(name, "stake_confirm", walk.id, member.user_id, member.amount_wei, reference=item.tx_hash)


def requeue(batch: Batch, code: str, detail: str) -> Advance:
    """The batch came to nothing; its requests wait for another one."""
    why = reason(code, detail)
    return Advance(
        BatchStatus.FAILED, reason=why, run_in_sec=None, write=lambda session: requeue_members(session, batch, why)
    )


def rejected(code: str, detail: str) -> Advance:
    """Ledger or index refuse the request; nothing was moved."""
    return Advance(RequestStatus.REJECTED, reason=reason(code, detail), run_in_sec=None)


def queued(amount_wei: int | None = None) -> Advance:
    """Set aside; batching looks at it at once."""
    values: dict[str, object] = {"queued_at": _CLOCK, "eligible_at": _NOW}
    if amount_wei is not None:
        values["amount_wei"] = amount_wei
    return Advance(RequestStatus.QUEUED, values, run_in_sec=None, wake=(("tasks.batching.run", None),))


def _fund(context: PoolContext, batch: Batch) -> Outcome | None:
    """Move the batch's ETH custody -> operator where they differ; None once the submit can be built."""
    settings = context.settings
    custody, operator = settings.custody_address or "", settings.operator_address or ""
    if custody.lower() == operator.lower() or batch.funded:
        return None
    if stored(context, batch, "fund") is None:
        held = {signer.address.lower() for signer in context.relayer.signers()}
        if custody.lower() not in held:
            return _wait_for_ops(context, batch)
        if batch.reused_wei is None:
            held_wei = context.protocols.state().operator.eth_wei - GAS_RESERVE_WEI
            return Advance(BatchStatus.BATCHED, write=lambda session: _reuse(session, batch, held_wei))
        missing = batch.amount_wei - batch.reused_wei
        if missing == 0:
            return Advance(BatchStatus.BATCHED, {"funded": True})
        unsigned = UnsignedTransaction(custody, operator, "0x", missing, TRANSFER_GAS, "Fund a stake batch", [])
        return Advance(BatchStatus.BATCHED, write=lambda session: store(session, batch, "fund", unsigned))
    sent = follow(context, batch, "fund")
    if isinstance(sent, Confirmed):
        return Advance(BatchStatus.BATCHED, {"funded": True})
    if not isinstance(sent, Failed):
        return sent
    if sent.too_much and len(members(context, batch.id)) > 1:
        return _requeue_smaller(batch, sent.code, sent.detail)
    why = reason(sent.code, sent.detail)
    if batch.try_number < MAX_TRIES:
        return Advance(BatchStatus.BATCHED, {"try_number": batch.try_number + 1}, reason=why, run_in_sec=5.0)
    return Park(why)


def _reuse(session: Session, batch: Batch, held_wei: int) -> None:
    """Note on a batch how much of it the operator holds already: what was moved for batches that came to nothing, and
    that has not been moved away since (`held_wei`).

    Without this each return to the queue would move the same users' ETH once more, until custody has none left for them.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('funding'), hashtext(:pool))"), {"pool": batch.pool_id})
    came_to_nothing = (Batch.status == BatchStatus.FAILED) & Batch.funded
    used = func.coalesce(Batch.reused_wei, 0)
    idle = session.scalar(
        select(
            func.coalesce(func.sum(Batch.amount_wei).filter(came_to_nothing), 0)
            - func.coalesce(func.sum(used).filter(or_(Batch.status != BatchStatus.FAILED, Batch.funded)), 0)
        ).where(Batch.pool_id == batch.pool_id, Batch.kind == BatchKind.STAKE, Batch.id != batch.id)
    )
    reused = max(0, min(batch.amount_wei, exact_int(idle), held_wei))
    session.execute(
        update(Batch).where(Batch.id == batch.id).values(reused_wei=reused),
        execution_options={"synchronize_session": False},
    )


def _wait_for_ops(context: PoolContext, batch: Batch) -> Outcome | None:
    """Custody's key is elsewhere: wait until an operator has moved the ETH, saying how much is missing."""
    has = context.protocols.state().operator.eth_wei
    missing = batch.amount_wei + GAS_RESERVE_WEI - has
    if missing <= 0:
        return None
    return Wait(10.0, reason("operator_underfunded", f"The operator's address lacks {missing} wei."))


def _requeue_smaller(batch: Batch, code: str, detail: str) -> Advance:
    why = reason(code, detail)
    return Advance(
        BatchStatus.FAILED, reason=why, run_in_sec=None, write=lambda session: requeue_smaller(session, batch, why)
    )


def _give_back(context: PoolContext, batch: Batch, code: str, detail: str) -> Advance:
    """The users get their reserved ETH back; the movement's name is the request's, so it happens once."""
    why = reason(code, detail)
    rows = [
        movement(
            effects.stake_release(member.request_id),
            "stake_release",
            batch.pool_id,
            member.user_id,
            member.amount_wei,
        )
        for member in members(context, batch.id)
    ]
    context.ledger.post_batch(rows)
    return Advance(
        BatchStatus.FAILED,
        reason=why,
        run_in_sec=None,
        write=lambda session: move_members(session, batch, RequestStatus.FAILED, reason=why),
    )


def _wei(request: Request) -> int:
    assert request.amount_wei is not None  # a stake names its amount
    return request.amount_wei
