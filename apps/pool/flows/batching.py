"""Batching: queued requests become batches, oldest first, whole requests only, each row in one batch.

One opener per pool and kind at a time (advisory lock), rows taken with SKIP LOCKED: any number of workers at once never
split a batch wrongly or take a row twice.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes.protocols import LidoState
from apps.common.database import one_of, transaction
from apps.common.wei import exact_int
from apps.common.wire import new_id
from apps.ethereum.constants import MAX_ELEMENTS
from apps.flow.row import Reason, code_of, reason
from apps.pool.context import PoolContext
from apps.pool.feed import change_requests
from apps.pool.flows.fitting import Hold, Waiting, fit
from apps.pool.flows.limits import (
    MAX_UNSTAKE_WEI,
    TOO_MUCH_TO_UNSTAKE,
    Cap,
    Limits,
    elements,
    relayer_limits,
)
from apps.pool.flows.members import insert_batch
from apps.pool.flows.transactions import refresh_parked_requests
from apps.pool.models import Batch, BatchTransaction, Request, Walk, queued_requests
from apps.pool.states import (
    BATCH_OPEN,
    UNDER_WAY,
    BatchKind,
    BatchStatus,
    RequestStatus,
    TransactionStatus,
)
from apps.pool.users.holds import held_users

log = structlog.get_logger(__name__)

MAX_REQUESTS_PER_STAKE_BATCH = 10_000
# How long the protocol's limit refills for one stake alone, nobody overtaking it: see `apps.pool.flows.fitting`.
PATIENCE_SEC = 900.0
# Reasons that batching writes itself and takes back where they hold no more.
OWN_REASONS = (
    "batches_paused", "protocol_stopped", "staking_paused", "queue_paused", "protocols_unavailable",
    "stake_above_limit", "stake_above_cap", "unstake_above_limit", "user_on_hold",
)  # fmt: skip


@dataclass(frozen=True)
class Queued:
    """A queued request as batching reads it: thousands of them, so no entity."""

    id: str
    amount_wei: int
    at_most: int | None
    waited_sec: float
    hold: Hold | None


def open_due_batches(context: PoolContext) -> int:
    """Open every batch that is due, for each pool with queued requests; returns how many.

    While nothing is due, requests are only told why they wait, on a look that is shared; see `apps.pool.look`.
    """
    due = _pools(context)
    is_due = any(due.values())
    if not due or not (is_due or context.look.is_due()):
        return 0
    try:
        state = context.look.now(context.protocols)
    except (CallFailed, CallRefused) as error:
        log.warning("batching_waits", why=str(error))
        _explain_outage(context, list(due))
        return 0
    limits = relayer_limits(context.relayer)
    return sum(open_batches(context, pool_id, state, limits) for pool_id in due)


def open_batches(
    context: PoolContext, pool_id: str, state: LidoState, limits: Limits | None = None
) -> int:  # fmt: skip
    """Open what is due in one pool, given the protocol's state and the relayer's limits (asked for where not given)."""
    known = (relayer_limits(context.relayer) if limits is None else limits).with_state(state)
    with suppress(CallFailed, CallRefused):  # as it was known before, until the relayer answers
        refresh_parked_requests(context, pool_id)
    opened = [_open(context, pool_id, kind, state, known) for kind in ("stake", "unstake")]
    for batch_id in opened:
        if batch_id is not None:
            context.publish("tasks.batches.advance", batch_id)
    return sum(batch_id is not None for batch_id in opened)


def _open(context: PoolContext, pool_id: str, kind: str, state: LidoState, limits: Limits) -> str | None:
    with transaction(context.sessions) as session:
        locked = session.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtext('batching'), hashtext(:lane))"),
            {"lane": f"{kind}:{pool_id}"},
        )
        if not locked:
            return None  # another worker is opening this pool's batches right now
        waiting = _queued_of(pool_id, kind)
        why = _obstacle(session, pool_id, kind, state)
        if why is not None:
            _explain(session, waiting, why)
            return None
        cap = limits.of_a_stake() if kind == "stake" else _UNSTAKE_CAP
        held = held_users(pool_id, kind)
        _explain(session, [*waiting, Request.user_id.in_(held)], _ON_HOLD)
        _tell_impossible(session, [*waiting, Request.user_id.not_in(held)], cap)
        due = _due_stakes if kind == "stake" else _due_unstakes
        rows = due(context, session, pool_id, limits, None if cap is None else cap.wei)
        return _insert_batch(session, pool_id, kind, rows) if rows else None


_ON_HOLD = reason("user_on_hold", "This user is on hold; the request waits until the hold is released.")
_UNSTAKE_CAP = Cap(MAX_UNSTAKE_WEI, "unstake_above_limit", f"{TOO_MUCH_TO_UNSTAKE} Cancel this one.")


def _obstacle(session: Session, pool_id: str, kind: str, state: LidoState) -> Reason | None:
    """Why no batch can be opened at all now."""
    switches = state.switches
    walk = session.get(Walk, pool_id)
    if walk is not None and walk.batches_paused is not None:
        return reason("batches_paused", "Reconciliation found a drift; batches wait until ops resume them.")
    if switches.stopped:
        return reason("protocol_stopped", "The protocol is stopped; requests wait until it resumes.")
    if kind == "stake" and switches.staking_paused:
        return reason("staking_paused", "Staking is paused by the protocol; requests wait until it resumes.")
    if kind == "unstake" and switches.queue_paused:
        return reason("queue_paused", "The withdrawal queue is paused; requests wait until it resumes.")
    return None


def _explain_outage(context: PoolContext, pools: Sequence[str]) -> None:
    why = reason("protocols_unavailable", "The chain cannot be asked now; requests wait until it can.")
    with transaction(context.sessions) as session:
        for pool_id in pools:
            for kind in ("stake", "unstake"):
                _explain(session, _queued_of(pool_id, kind), why)


def _queued_of(pool_id: str, kind: str) -> tuple[ColumnElement[bool], ...]:
    """Those that this release knows the steps of; what a later one queued is left to its workers."""
    known = Request.flow_version <= Request.current_version
    return Request.pool_id == pool_id, Request.kind == kind, *queued_requests(), known


def _explain(session: Session, which: Sequence[ColumnElement[bool]], why: Reason | None) -> None:
    """Show on requests why they wait, or that nothing keeps them any more; once, not at every look."""
    change_requests(session, *which, Request.reason["code"].astext.is_distinct_from(code_of(why)), reason=why)


def _tell_impossible(session: Session, waiting: Sequence[ColumnElement[bool]], cap: Cap | None) -> None:
    """Say on what no batch can hold that it is so, and take back what was said and holds no more."""
    if cap is not None:
        _explain(session, [*waiting, Request.amount_wei > cap.wei], reason(cap.code, cap.detail))
    told = [Request.reason["code"].astext.in_(OWN_REASONS), Request.eligible_at <= func.now()]
    if cap is not None:
        told.append(Request.amount_wei <= cap.wei)
    _explain(session, [*waiting, *told], None)


def _due_stakes(
    context: PoolContext, session: Session, pool_id: str, limits: Limits, most_wei: int | None
) -> list[Queued]:  # fmt: skip
    eligible = _eligible(pool_id, "stake", most_wei)
    rows = _due(context, session, "stake", eligible, MAX_REQUESTS_PER_STAKE_BATCH)
    if not rows:
        return []
    room = limits.free_now(*_under_way(session, pool_id))
    now = float(session.scalar(select(func.extract("epoch", func.now()))) or 0)
    found = fit(
        [Waiting(row.id, row.amount_wei, row.at_most) for row in rows],
        batch=limits.per_tx_wei,
        room=None if room is None else room.wei,
        hold=next((row.hold for row in rows if row.hold is not None), None),
        now=now,
        patience_sec=PATIENCE_SEC,
    )
    chosen = set(found.chosen)
    if found.hold is not None and room is not None:
        hold = found.hold
        session.execute(
            update(Request)
            .where(Request.id == hold.request_id)
            .values(hold_since=hold.since, hold_aside=hold.aside, hold_left=hold.left),
            execution_options={"synchronize_session": False},
        )
        rest = [row.id for row in rows if row.id not in chosen]
        _explain(session, [one_of(Request.id, rest)], reason(room.code, room.detail))
    return [row for row in rows if row.id in chosen]


def _under_way(session: Session, pool_id: str) -> tuple[int, int]:
    """Wei of open stake batches, which use up the protocol's limit; and of those, what the relayer has not signed."""
    open_ = (
        Batch.pool_id == pool_id,
        Batch.kind == BatchKind.STAKE,
        Batch.status.in_(BATCH_OPEN),
    )
    signed = select(BatchTransaction.batch_id).where(
        BatchTransaction.batch_id == Batch.id,
        BatchTransaction.purpose == "submit",
        BatchTransaction.status != TransactionStatus.QUEUED,
    )
    total = func.coalesce(func.sum(Batch.amount_wei), 0)
    unsigned = func.coalesce(func.sum(Batch.amount_wei).filter(~signed.exists()), 0)
    row = session.execute(select(total, unsigned).where(*open_)).one()
    return exact_int(row[0]), exact_int(row[1])


def _due_unstakes(
    context: PoolContext, session: Session, pool_id: str, _limits: Limits, most_wei: int | None
) -> list[Queued]:  # fmt: skip
    """One unstake batch at a time per pool: the next one's stETH balance is known only when the last is mined."""
    eligible = _eligible(pool_id, "unstake", most_wei)
    rows = _due(context, session, "unstake", eligible, MAX_ELEMENTS)
    if not rows:
        return []
    other = session.scalar(select(Batch.id).where(*unstakes_under_way(pool_id)).limit(1))
    if other is not None:
        detail = f"Unstake batches go one at a time; the next one is opened when batch {other} is mined."
        _explain(session, eligible, reason("batch_open", detail))
        return []
    found = fit([Waiting(row.id, elements(row.amount_wei), row.at_most) for row in rows], batch=MAX_ELEMENTS)
    chosen = set(found.chosen)
    return [row for row in rows if row.id in chosen]


def unstakes_under_way(pool_id: str) -> tuple[ColumnElement[bool], ...]:
    """The open batch, or a parked one whose request may still be mined. Any other parked one holds up itself alone: its
    stETH stays with the operator, who has that of all who are on their way out."""
    sent = select(BatchTransaction.batch_id).where(
        BatchTransaction.batch_id == Batch.id,
        BatchTransaction.purpose == "request",
        BatchTransaction.status.in_(UNDER_WAY | {TransactionStatus.CONFIRMED}),
    )
    parked = and_(Batch.status == BatchStatus.NEEDS_ATTENTION, sent.exists())
    return Batch.pool_id == pool_id, Batch.kind == BatchKind.UNSTAKE, or_(Batch.status.in_(BATCH_OPEN), parked)


def _pools(context: PoolContext) -> dict[str, bool]:
    """The pools with queued requests, and whether a batch of any kind may be due there."""
    found: dict[str, bool] = {}
    query = select(Request.pool_id, Request.kind, total_wei(), waited_sec()).where(*queued_requests())
    with transaction(context.sessions) as session:
        for pool_id, kind, total, waited in session.execute(query.group_by(Request.pool_id, Request.kind)):
            threshold_wei, max_wait_sec = rhythm(context, kind)
            is_due = total >= threshold_wei or waited >= max_wait_sec
            found[pool_id] = found.get(pool_id, False) or is_due
    return found


def rhythm(context: PoolContext, kind: str) -> tuple[int, float]:
    """From which sum, in wei, and after which wait, in seconds, a batch is opened."""
    settings = context.settings
    if kind == BatchKind.STAKE:
        return settings.stake_batch_threshold_wei, settings.stake_batch_max_wait_sec
    return settings.unstake_batch_threshold_wei, settings.unstake_batch_max_wait_sec


def total_wei() -> ColumnElement[Any]:
    return func.coalesce(func.sum(Request.amount_wei), 0)


def waited_sec() -> ColumnElement[Any]:
    return func.coalesce(func.extract("epoch", func.now() - func.min(Request.queued_at)), 0)


def _eligible(pool_id: str, kind: str, most_wei: int | None) -> list[ColumnElement[bool]]:
    """Which requests may go into a batch now, apart from the limits that they share."""
    free = Request.user_id.not_in(held_users(pool_id, kind))
    found = [*_queued_of(pool_id, kind), free, Request.intent.is_(None), Request.eligible_at <= func.now()]
    return found if most_wei is None else [*found, Request.amount_wei <= most_wei]


def _due(
    context: PoolContext, session: Session, kind: str, eligible: Sequence[ColumnElement[bool]], limit: int
) -> list[Queued]:
    """Up to `limit` of the eligible, locked, oldest first; none where no batch of them is due."""
    threshold_wei, max_wait_sec = rhythm(context, kind)
    # One sum before any row is locked and read: most looks find that nothing is due.
    total, waited = session.execute(select(total_wei(), waited_sec()).where(*eligible)).one()
    if total < threshold_wei and waited < max_wait_sec:
        return []
    rows = session.execute(
        select(
            Request.id,
            Request.amount_wei,
            Request.at_most,
            func.extract("epoch", func.now() - Request.queued_at).label("waited"),
            Request.hold_since,
            Request.hold_aside,
            Request.hold_left,
        )
        .where(*eligible)
        .order_by(Request.queued_at, Request.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = [Queued(row.id, row.amount_wei, row.at_most, float(row.waited), _hold_of(row)) for row in rows]
    if not found or (sum(row.amount_wei for row in found) < threshold_wei and found[0].waited_sec < max_wait_sec):
        return []
    return found


def _hold_of(row: Any) -> Hold | None:
    if row.hold_since is None:
        return None
    return Hold(row.id, row.hold_since, row.hold_aside or 0, row.hold_left or 0)


def _insert_batch(session: Session, pool_id: str, kind: str, rows: Sequence[Queued]) -> str:
    batch = Batch(
        id=new_id(),
        kind=kind,
        pool_id=pool_id,
        amount_wei=sum(row.amount_wei for row in rows),
        request_count=len(rows),
    )
    insert_batch(session, batch, {"requests": len(rows)})
    change_requests(
        session,
        one_of(Request.id, [row.id for row in rows]),
        status=RequestStatus.BATCHED,
        batch_id=batch.id,
        reason=None,
        hold_since=None,
        hold_aside=None,
        hold_left=None,
    )
    return batch.id
