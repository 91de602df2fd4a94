"""The engine: what a worker works with, and the run of one claimed step."""

from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import is_transient, transaction
from apps.pool.context import PoolContext
from apps.pool.feed import record_events
from apps.pool.flows.lanes import LaneBusy
from apps.pool.flows.leases import (
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
from apps.pool.models import Batch, Request, requests_of
from apps.pool.rendering import TERMINAL
from apps.pool.walk.booking import WalkHalted

HALTED_AGAIN_SEC = 30.0

log = structlog.get_logger(__name__)

Step = Callable[[PoolContext, Batch], Outcome]


def run_batch(context: PoolContext, batch: Batch, step: Step) -> None:
    """Run one step of a claimed batch and write its outcome. What a later run can heal never escapes."""
    try:
        outcome = step(context, batch)
    except LaneBusy:
        outcome = Wait(0.2, batch.reason)
    except LeaseLost:
        log.warning("lease_lost", batch_id=batch.id, status=batch.status)
        return
    except WalkHalted as halt:
        outcome = Wait(HALTED_AGAIN_SEC, reason(halt.code, halt.detail))
    except Exception as error:
        # Whatever it was, the row must come back: a lease that merely runs out would hide it, and never end.
        if not isinstance(error, CallFailed | CallRefused) and not is_transient(error):
            log.exception("step_failed", batch_id=batch.id, status=batch.status)
        _failed(context, batch, error)
        return
    try:
        write_outcome(context, batch, outcome)
    except LeaseLost:
        log.warning("lease_lost", batch_id=batch.id, status=batch.status)


def write_outcome(context: PoolContext, batch: Batch, outcome: Outcome) -> None:
    """Checkpoint a batch's outcome with whatever belongs to it, in one transaction; then wake what is next."""
    with transaction(context.sessions) as session:
        if isinstance(outcome, Wait):
            wait(session, batch, outcome)
            if _code(outcome.reason) != _code(batch.reason):
                record_events(session, _tell_members(session, batch, outcome.reason))
            return
        if isinstance(outcome, Park):
            kept = {**batch.context, "parked_status": batch.status}
            checkpoint(session, batch, status="needs_attention", run_in_sec=None, reason=outcome.reason, context=kept)
            record_events(session, set_members(session, batch, "needs_attention", outcome.reason))
            log.error("needs_attention", batch_id=batch.id, why=outcome.reason)
            return
        values = {"reason": outcome.reason, **outcome.values}
        checkpoint(session, batch, status=outcome.status, run_in_sec=outcome.run_in_sec, **values)
        if outcome.write is not None:
            outcome.write(session)
    for task, row_id in outcome.wake:
        context.publish(task, row_id)


def _tell_members(session: Session, batch: Batch, why: dict[str, Any] | None) -> list[str]:
    """Show on a batch's open requests what it waits for, or that it does so no more; returns the ids of those changed."""
    told = Request.reason["code"].astext
    known = told.is_distinct_from(_code(why)) if why is not None else told == _code(batch.reason)
    changed = session.scalars(
        update(Request)
        .where(requests_of(batch), Request.status.not_in(TERMINAL), known)
        .values(reason=why, updated_at=func.clock_timestamp())
        .returning(Request.id),
        execution_options={"synchronize_session": False},
    )
    return list(changed)


def _code(why: dict[str, Any] | None) -> str | None:
    return None if why is None else str(why["code"])


def set_members(session: Session, batch: Batch, status: str, why: dict[str, Any] | None = None) -> list[str]:
    """Move a batch's open requests to a status; returns their ids, for `record_events`."""
    changed = session.scalars(
        update(Request)
        .where(requests_of(batch), Request.status.not_in(TERMINAL), Request.status != status)
        .values(status=status, reason=why, updated_at=func.clock_timestamp())
        .returning(Request.id),
        execution_options={"synchronize_session": False},
    )
    return list(changed)


def _failed(context: PoolContext, batch: Batch, error: Exception) -> None:
    try:
        if attempts_used_up(batch, error):
            write_outcome(context, batch, Park(reason("attempts_exhausted", fault_text(error)[:300])))
            return
        with transaction(context.sessions) as session:
            back_off(session, batch, fault_text(error))
    except LeaseLost:
        log.warning("lease_lost", batch_id=batch.id, status=batch.status)
