"""A stake batch, from its opening to its one ``submit`` on chain.

    batched --(fund)--build--> submitting --send--> confirming --(the walk meets its Submitted log)--> completed

A submit that had no effect, settled so at the horizon, is read: a stake limit or a pause puts the requests back
into the queue, as does what the relayer is not set up for; what is too much at once goes back to be sent in smaller
batches; anything else gives the users their ETH back (`failed`). A conflict is never retried.
"""

from typing import Any

from sqlalchemy import Numeric, cast, func, or_, select, text, update
from sqlalchemy.orm import Session

from apps.clients.base import CallRefused
from apps.clients.ledger import movement
from apps.common.wei import exact_int
from apps.pool.context import PoolContext
from apps.pool.flows.engine import Step
from apps.pool.flows.leases import Advance, Outcome, Park, Wait, reason
from apps.pool.flows.members import members, move_members, requeue_members, requeue_smaller
from apps.pool.flows.transactions import (
    FAILED,
    POLL_SEC,
    SET_UP,
    TOO_MUCH,
    failure,
    follow,
    send,
    stored,
    waiting,
    with_transaction,
)
from apps.pool.models import Batch

# What passes by itself, whether protocols said it before sending or the chain did after.
PASSING = frozenset({"staking_paused", "stake_limit_exceeded", "protocol_stopped"})
PASSING_REVERTS = ("STAKE_LIMIT", "STAKING_PAUSED", "CONTRACT_IS_STOPPED")
REUSED = "reused_wei"
GAS_RESERVE_WEI = 10**16
TRANSFER_GAS = 21_000
MAX_TRIES = 5


def build(context: PoolContext, batch: Batch) -> Outcome:
    """Make sure that the operator holds the ETH, and build the submit."""
    waiting = _fund(context, batch)
    if waiting is not None:
        return waiting
    try:
        unsigned = context.protocols.build_submit(batch.amount_wei)
    except CallRefused as refusal:
        if refusal.code in PASSING:
            return requeue(batch, refusal.code, refusal.detail)
        if refusal.code == "operator_underfunded" or "insufficient funds" in refusal.detail.lower():
            return Wait(5.0, reason("operator_underfunded", refusal.detail))
        return Park(reason(refusal.code, refusal.detail))
    return Advance(
        "submitting",
        {"context": with_transaction(batch, "submit", unsigned)},
        write=lambda session: _void(move_members(session, batch, "submitting")),
        wake=(("tasks.batches.advance", batch.id),),
    )


def submit(context: PoolContext, batch: Batch) -> Outcome:
    """Hand the stored submit to the relayer."""
    send(context, batch, "submit")
    return Advance(
        "confirming", run_in_sec=POLL_SEC, write=lambda session: _void(move_members(session, batch, "confirming"))
    )


def confirm(context: PoolContext, batch: Batch) -> Outcome:
    """Follow the submit until the walk has booked it, or it is settled without effect."""
    sent = follow(context, batch, "submit")
    if sent["status"] == "confirmed":
        context.publish("tasks.walk.run_pool", batch.pool_id)
        return Wait(2 * POLL_SEC)
    if sent["status"] == "conflict":
        return Park(reason("conflict", "The signing key was used by somebody else; see the relayer's message."))
    if sent["status"] in FAILED:
        code, detail = failure(sent)
        if any(text in f"{code} {detail}" for text in PASSING_REVERTS):
            return requeue(batch, "stake_limit_exceeded" if "LIMIT" in f"{code} {detail}" else "staking_paused", detail)
        if sent["status"] == "rejected" and code in TOO_MUCH and len(members(context, batch.id)) > 1:
            return _requeue_smaller(batch, code, detail)
        if sent["status"] == "rejected" and (code in SET_UP or code == "daily_value_over_cap"):
            return requeue(batch, code, detail)
        return _give_back(context, batch, code, detail)
    return waiting(sent)


STAKE_STEPS: dict[str, Step] = {"batched": build, "submitting": submit, "confirming": confirm}


def _fund(context: PoolContext, batch: Batch) -> Outcome | None:
    """Move the batch's ETH custody -> operator where they differ; None once the submit can be built."""
    settings = context.settings
    custody, operator = settings.custody_address or "", settings.operator_address or ""
    if custody.lower() == operator.lower() or batch.context.get("funded"):
        return None
    if stored(batch, "fund") is None:
        held = {signer["address"].lower() for signer in context.relayer.signers()}
        if custody.lower() not in held:
            return _wait_for_ops(context, batch)
        if REUSED not in batch.context:
            held_wei = int(context.protocols.state()["operator"]["eth_wei"]) - GAS_RESERVE_WEI
            return Advance("batched", write=lambda session: _reuse(session, batch, held_wei))
        missing = batch.amount_wei - int(batch.context[REUSED])
        if missing == 0:
            return Advance("batched", {"context": {**batch.context, "funded": True}})
        unsigned: dict[str, Any] = {
            "from": custody, "to": operator, "data": "0x", "value_wei": str(missing), "gas_limit": TRANSFER_GAS
        }  # fmt: skip
        return Advance("batched", {"context": with_transaction(batch, "fund", unsigned)})
    sent = follow(context, batch, "fund")
    if sent["status"] == "confirmed":
        return Advance("batched", {"context": {**batch.context, "funded": True}})
    if sent["status"] == "rejected" and failure(sent)[0] in TOO_MUCH and len(members(context, batch.id)) > 1:
        return _requeue_smaller(batch, *failure(sent))
    if sent["status"] in FAILED and batch.try_number < MAX_TRIES:
        return Advance("batched", {"try_number": batch.try_number + 1}, reason=reason(*failure(sent)), run_in_sec=5.0)
    if sent["status"] in FAILED or sent["status"] == "conflict":
        return Park(reason(*failure(sent)))
    return waiting(sent)


def _reuse(session: Session, batch: Batch, held_wei: int) -> None:
    """Note on a batch how much of it the operator holds already: what was moved for batches that came to nothing, and
    that nobody has moved away since (`held_wei`).

    Without this each return to the queue would move the same users' ETH once more, until custody has none left for them.
    """
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('funding'), hashtext(:pool))"), {"pool": batch.pool_id})
    funded = Batch.context["funded"].astext == "true"
    came_to_nothing = (Batch.status == "failed") & funded
    used = func.coalesce(cast(Batch.context[REUSED].astext, Numeric), 0)
    idle = session.scalar(
        select(
            func.coalesce(func.sum(Batch.amount_wei).filter(came_to_nothing), 0)
            - func.coalesce(func.sum(used).filter(or_(Batch.status != "failed", funded)), 0)
        ).where(Batch.pool_id == batch.pool_id, Batch.kind == "stake", Batch.id != batch.id)
    )
    reused = max(0, min(batch.amount_wei, exact_int(idle), held_wei))
    session.execute(
        update(Batch).where(Batch.id == batch.id).values(context={**batch.context, REUSED: str(reused)}),
        execution_options={"synchronize_session": False},
    )


def _wait_for_ops(context: PoolContext, batch: Batch) -> Outcome | None:
    """Custody's key is elsewhere: wait until somebody has moved the ETH, saying how much is missing."""
    has = int(context.protocols.state()["operator"]["eth_wei"])
    missing = batch.amount_wei + GAS_RESERVE_WEI - has
    if missing <= 0:
        return None
    return Wait(10.0, reason("operator_underfunded", f"The operator's address lacks {missing} wei."))


def requeue(batch: Batch, code: str, detail: str) -> Advance:
    why = reason(code, detail)
    return Advance("failed", reason=why, run_in_sec=None, write=lambda session: requeue_members(session, batch, why))


def _requeue_smaller(batch: Batch, code: str, detail: str) -> Advance:
    why = reason(code, detail)
    return Advance("failed", reason=why, run_in_sec=None, write=lambda session: requeue_smaller(session, batch, why))


def _give_back(context: PoolContext, batch: Batch, code: str, detail: str) -> Advance:
    """The users get their reserved ETH back; the movement's id is the request's, so it happens once."""
    why = reason(code, detail)
    rows = [
        movement(
            f"stake:{member.request_id}:release", "stake_release", batch.pool_id, member.user_id, member.amount_wei
        )
        for member in members(context, batch.id)
    ]
    context.ledger.post_batch(rows)
    return Advance(
        "failed",
        reason=why,
        run_in_sec=None,
        write=lambda session: _void(move_members(session, batch, "failed", reason=why)),
    )


def _void(_ids: list[str]) -> None:
    """A checkpoint's `write` returns nothing."""
