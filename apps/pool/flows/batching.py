"""Batching: queued requests become batches, oldest first, whole requests only, each row in one batch.

One opener per pool and kind at a time (advisory lock), rows taken with SKIP LOCKED: any number of workers at once never
split a batch wrongly or take a row twice.
"""

from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes.protocols import LidoState
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.common.wire import new_id
from apps.ethereum.constants import MAX_ELEMENTS
from apps.flow.row import Reason, code_of, reason
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
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
from apps.pool.models import Batch, BatchTransaction, Request, Walk
from apps.pool.states import (
    BATCH_OPEN,
    UNDER_WAY,
    BatchKind,
    BatchStatus,
    RequestStatus,
    TransactionStatus,
)

log = structlog.get_logger(__name__)

MAX_REQUESTS_PER_STAKE_BATCH = 10_000
# How long the protocol's limit refills for one stake alone, nobody overtaking it: see `apps.pool.flows.fitting`.
PATIENCE_SEC = 900.0
# Reasons that batching writes itself and takes back where they hold no more.
OWN_REASONS = (
    "batches_paused", "protocol_stopped", "staking_paused", "queue_paused", "protocols_unavailable",
    "stake_above_limit", "stake_above_cap", "unstake_above_limit",
)  # fmt: skip


def open_due_batches(context: PoolContext) -> int:
    """Open every batch that is due, for each pool with queued requests; returns how many."""
    with transaction(context.sessions) as session:
        pools = session.scalars(select(Request.pool_id).where(Request.status == RequestStatus.QUEUED).distinct()).all()
    if not pools:
        return 0
    try:
        state = context.protocols.state()
    except (CallFailed, CallRefused) as error:
        log.warning("batching_waits", why=str(error))
        _explain_outage(context, pools)
        return 0
    limits = relayer_limits(context.relayer)
    return sum(open_batches(context, pool_id, state, limits) for pool_id in pools)


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
        _tell_impossible(session, waiting, cap)
        due = _due_stakes if kind == "stake" else _due_unstakes
        rows = due(context, session, pool_id, limits, None if cap is None else cap.wei)
        return _insert_batch(session, pool_id, kind, rows) if rows else None


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
    return Request.pool_id == pool_id, Request.kind == kind, Request.status == RequestStatus.QUEUED, known


def _explain(session: Session, which: Sequence[ColumnElement[bool]], why: Reason | None) -> None:
    """Show on requests why they wait, or that nothing keeps them any more; once, not at every look."""
    code = code_of(why)
    changed = session.scalars(
        update(Request)
        .where(*which, Request.reason["code"].astext.is_distinct_from(code))
        .values(reason=why, updated_at=func.clock_timestamp())
        .returning(Request.id),
        execution_options={"synchronize_session": False},
    ).all()
    record_events(session, changed)


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
) -> list[Request]:  # fmt: skip
    rows = _queued(session, pool_id, "stake", MAX_REQUESTS_PER_STAKE_BATCH, most_wei)
    settings = context.settings
    if not _is_due(session, rows, settings.stake_batch_threshold_wei, settings.stake_batch_max_wait_sec):
        return []
    room = limits.free_now(*_under_way(session, pool_id))
    now = float(session.scalar(select(func.extract("epoch", func.now()))) or 0)
    hold = next((_hold_of(row) for row in rows if row.hold_since is not None), None)
    found = fit(
        [_waiting(row, int(row.amount_wei or 0)) for row in rows],
        batch=limits.per_tx_wei,
        room=None if room is None else room.wei,
        hold=hold,
        now=now,
        patience_sec=PATIENCE_SEC,
    )
    chosen = set(found.chosen)
    if found.hold is not None and room is not None:
        holder = next(row for row in rows if row.id == found.hold.request_id)
        holder.hold_since, holder.hold_aside, holder.hold_left = found.hold.since, found.hold.aside, found.hold.left
        session.flush()
        rest = [row.id for row in rows if row.id not in chosen]
        _explain(session, [Request.id.in_(rest)], reason(room.code, room.detail))
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
) -> list[Request]:  # fmt: skip
    """One unstake batch at a time per pool: the next one's stETH balance is known only when the last is mined."""
    rows = _queued(session, pool_id, "unstake", MAX_ELEMENTS, most_wei)
    settings = context.settings
    if not _is_due(session, rows, settings.unstake_batch_threshold_wei, settings.unstake_batch_max_wait_sec):
        return []
    other = session.scalar(select(Batch.id).where(*_unstakes_under_way(pool_id)).limit(1))
    if other is not None:
        detail = f"Unstake batches go one at a time; the next one is opened when batch {other} is mined."
        due = Request.eligible_at <= func.now()
        _explain(
            session,
            [*_queued_of(pool_id, "unstake"), due, Request.amount_wei <= most_wei],
            reason("batch_open", detail),
        )
        return []
    found = fit([_waiting(row, elements(int(row.amount_wei or 0))) for row in rows], batch=MAX_ELEMENTS)
    chosen = set(found.chosen)
    return [row for row in rows if row.id in chosen]


def _unstakes_under_way(pool_id: str) -> tuple[ColumnElement[bool], ...]:
    """The open batch, or a parked one whose request may still be mined. Any other parked one holds up itself alone: its
    stETH stays with the operator, who has that of all who are on their way out."""
    sent = select(BatchTransaction.batch_id).where(
        BatchTransaction.batch_id == Batch.id,
        BatchTransaction.purpose == "request",
        BatchTransaction.status.in_(UNDER_WAY | {TransactionStatus.CONFIRMED}),
    )
    parked = and_(Batch.status == BatchStatus.NEEDS_ATTENTION, sent.exists())
    return Batch.pool_id == pool_id, Batch.kind == BatchKind.UNSTAKE, or_(Batch.status.in_(BATCH_OPEN), parked)


def _queued(session: Session, pool_id: str, kind: str, limit: int, most_wei: int | None) -> list[Request]:
    query = (
        select(Request)
        .where(*_queued_of(pool_id, kind), Request.intent.is_(None), Request.eligible_at <= func.now())
        .order_by(Request.queued_at, Request.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if most_wei is not None:
        query = query.where(Request.amount_wei <= most_wei)
    return list(session.scalars(query))


def _waiting(row: Request, size: int) -> Waiting:
    return Waiting(row.id, size, row.at_most)


def _hold_of(row: Request) -> Hold:
    return Hold(row.id, row.hold_since or 0.0, row.hold_aside or 0, row.hold_left or 0)


def _is_due(session: Session, rows: Sequence[Request], threshold_wei: int, max_wait_sec: float) -> bool:
    if not rows:
        return False
    if sum(int(row.amount_wei or 0) for row in rows) >= threshold_wei:
        return True
    oldest = rows[0].queued_at
    waited = session.scalar(select(func.extract("epoch", func.now() - oldest)))
    return float(waited or 0) >= max_wait_sec


def _insert_batch(session: Session, pool_id: str, kind: str, rows: Sequence[Request]) -> str:
    batch = Batch(
        id=new_id(),
        kind=kind,
        pool_id=pool_id,
        amount_wei=sum(int(row.amount_wei or 0) for row in rows),
        request_count=len(rows),
    )
    insert_batch(session, batch, {"requests": len(rows)})
    ids = [row.id for row in rows]
    session.execute(
        update(Request)
        .where(Request.id.in_(ids))
        .values(
            status=RequestStatus.BATCHED,
            batch_id=batch.id,
            reason=None,
            hold_since=None,
            hold_aside=None,
            hold_left=None,
            updated_at=func.clock_timestamp(),
        ),
        execution_options={"synchronize_session": False},
    )
    record_events(session, ids)
    return batch.id
