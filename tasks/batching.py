"""Batching: queued requests become batches, oldest first, whole requests only, each row in one batch.

One opener per pool and kind at a time (advisory lock), rows taken with SKIP LOCKED: any number of workers at once never
split a batch wrongly or take a row twice.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.common.wire import new_id
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.leases import flow_event, reason
from apps.pool.models import Batch, Request, Walk
from tasks import celery
from tasks.engine import worker_context
from tasks.schedules import fires

log = structlog.get_logger(__name__)

MAX_REQUESTS_PER_STAKE_BATCH = 10_000
MAX_ELEMENTS_PER_UNSTAKE_BATCH = 100
MAX_WITHDRAWAL_WEI = 1000 * 10**18  # WithdrawalQueue.MAX_STETH_WITHDRAWAL_AMOUNT
OPEN_STATUSES = ("batched", "submitting", "confirming", "requesting", "claiming", "needs_attention")


@celery.task(name="tasks.batching.run")
def run(schedule: str | None = None) -> int:
    """Open every batch that is due, for each pool with queued requests; returns how many."""
    context = worker_context()
    if not fires(context, schedule):
        return 0
    with transaction(context.sessions) as session:
        pools = session.scalars(select(Request.pool_id).where(Request.status == "queued").distinct()).all()
    if not pools:
        return 0
    try:
        state = context.protocols.state()
    except (CallFailed, CallRefused) as error:
        log.warning("batching_waits", why=str(error))
        return 0
    return sum(open_batches(context, pool_id, state) for pool_id in pools)


def open_batches(context: PoolContext, pool_id: str, state: dict[str, Any]) -> int:
    """Open what is due in one pool, given the protocol's state."""
    opened = [_open(context, pool_id, kind, state) for kind in ("stake", "unstake")]
    for batch_id in opened:
        if batch_id is not None:
            context.publish("tasks.batches.advance", batch_id)
    return sum(batch_id is not None for batch_id in opened)


def _open(context: PoolContext, pool_id: str, kind: str, state: dict[str, Any]) -> str | None:
    with transaction(context.sessions) as session:
        locked = session.scalar(
            text("SELECT pg_try_advisory_xact_lock(hashtext('batching'), hashtext(:lane))"),
            {"lane": f"{kind}:{pool_id}"},
        )
        if not locked:
            return None  # another worker is opening this pool's batches right now
        why = _obstacle(session, pool_id, kind, state)
        if why is not None:
            _explain(session, pool_id, kind, why)
            return None
        stakes = kind == "stake"
        rows = _due_stakes(context, session, pool_id, state) if stakes else _due_unstakes(context, session, pool_id)
        return _insert_batch(session, pool_id, kind, rows) if rows else None


def _obstacle(session: Session, pool_id: str, kind: str, state: dict[str, Any]) -> dict[str, Any] | None:
    """Why no batch can be opened at all now."""
    switches = state["switches"]
    walk = session.get(Walk, pool_id)
    if walk is not None and walk.batches_paused is not None:
        return reason("batches_paused", "Reconciliation found a drift; batches wait until ops resume them.")
    if switches["stopped"]:
        return reason("protocol_stopped", "The protocol is stopped; requests wait until it resumes.")
    if kind == "stake" and switches["staking_paused"]:
        return reason("staking_paused", "Staking is paused by the protocol; requests wait until it resumes.")
    if kind == "unstake" and switches["queue_paused"]:
        return reason("queue_paused", "The withdrawal queue is paused; requests wait until it resumes.")
    return None


def _explain(session: Session, pool_id: str, kind: str, why: dict[str, Any]) -> None:
    """Show on every waiting request why it waits; once, not at every look."""
    changed = session.scalars(
        update(Request)
        .where(
            Request.pool_id == pool_id,
            Request.kind == kind,
            Request.status == "queued",
            func.coalesce(Request.reason["code"].astext, "") != why["code"],
        )
        .values(reason=why, updated_at=func.clock_timestamp())
        .returning(Request.id),
        execution_options={"synchronize_session": False},
    ).all()
    record_events(session, changed)


def _due_stakes(context: PoolContext, session: Session, pool_id: str, state: dict[str, Any]) -> list[Request]:
    rows = _queued(session, pool_id, "stake", MAX_REQUESTS_PER_STAKE_BATCH)
    settings = context.settings
    if not _is_due(session, rows, settings.stake_batch_threshold_wei, settings.stake_batch_max_wait_sec):
        return []
    limit = state["stake_limit"]["current_wei"]
    if limit is None:
        return rows
    # What open batches have not submitted yet uses up the same limit.
    under_way = session.scalar(
        select(func.coalesce(func.sum(Batch.amount_wei), 0)).where(
            Batch.pool_id == pool_id, Batch.kind == "stake", Batch.status.in_(("batched", "submitting", "confirming"))
        )
    )
    chosen = _prefix(rows, int(limit) - exact_int(under_way))
    if not chosen:
        why = reason("stake_limit", f"The protocol takes {limit} wei right now; it refills with every block.")
        _explain(session, pool_id, "stake", why)
    return chosen


def _due_unstakes(context: PoolContext, session: Session, pool_id: str) -> list[Request]:
    """One unstake batch at a time per pool: the next one's stETH balance is known only when the last is mined."""
    open_one = select(Batch.id).where(
        Batch.pool_id == pool_id, Batch.kind == "unstake", Batch.status.in_(OPEN_STATUSES)
    )
    if session.scalar(open_one.limit(1)) is not None:
        return []
    rows = _queued(session, pool_id, "unstake", MAX_ELEMENTS_PER_UNSTAKE_BATCH)
    settings = context.settings
    if not _is_due(session, rows, settings.unstake_batch_threshold_wei, settings.unstake_batch_max_wait_sec):
        return []
    chosen: list[Request] = []
    elements = 0
    for row in rows:
        elements += -(-int(row.amount_wei or 0) // MAX_WITHDRAWAL_WEI)
        if elements > MAX_ELEMENTS_PER_UNSTAKE_BATCH:
            break
        chosen.append(row)
    return chosen


def _queued(session: Session, pool_id: str, kind: str, limit: int) -> list[Request]:
    query = (
        select(Request)
        .where(
            Request.pool_id == pool_id,
            Request.kind == kind,
            Request.status == "queued",
            Request.intent.is_(None),
            Request.eligible_at <= func.now(),
        )
        .order_by(Request.queued_at, Request.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(session.scalars(query))


def _is_due(session: Session, rows: Sequence[Request], threshold_wei: int, max_wait_sec: float) -> bool:
    if not rows:
        return False
    if sum(int(row.amount_wei or 0) for row in rows) >= threshold_wei:
        return True
    oldest = rows[0].queued_at
    waited = session.scalar(select(func.extract("epoch", func.now() - oldest)))
    return float(waited or 0) >= max_wait_sec


def _prefix(rows: Sequence[Request], room_wei: int) -> list[Request]:
    """Whole requests, oldest first, as many as fit; a large one in front is not overtaken."""
    chosen: list[Request] = []
    for row in rows:
        room_wei -= int(row.amount_wei or 0)
        if room_wei < 0:
            break
        chosen.append(row)
    return chosen


def _insert_batch(session: Session, pool_id: str, kind: str, rows: Sequence[Request]) -> str:
    batch = Batch(
        id=new_id(),
        kind=kind,
        pool_id=pool_id,
        status="batched",
        context={},
        amount_wei=sum(int(row.amount_wei or 0) for row in rows),
        request_count=len(rows),
        attempts=0,
        next_run_at=func.now(),
    )
    session.add(batch)
    session.flush()
    session.add(flow_event(batch, "created", "batched", {"requests": len(rows)}))
    ids = [row.id for row in rows]
    session.execute(
        update(Request)
        .where(Request.id.in_(ids))
        .values(status="batched", batch_id=batch.id, reason=None, updated_at=func.clock_timestamp()),
        execution_options={"synchronize_session": False},
    )
    record_events(session, ids)
    return batch.id
