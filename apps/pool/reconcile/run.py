"""Reconciliation: at the walk's cursor every effect is booked, so there the books must equal the chain, to the wei."""

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes.reconciliation import Reconciliation
from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.common.wire import new_id
from apps.flow.lanes import LaneBusy
from apps.flow.lease import LeaseLost, extend
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.flows.members import left_and_not_requested
from apps.pool.models import WHOLE_BLOCK, Batch, CompanyWithdrawal, Request, Walk
from apps.pool.reconcile.audits import pause_batches
from apps.pool.reconcile.cross_check import users_that_differ
from apps.pool.states import BatchKind, WalkStatus
from apps.pool.walk.booking import WalkHalted, write_walk
from apps.pool.walk.lane import walk_lane
from apps.pool.walk.rewards import book_reward_events

log = structlog.get_logger(__name__)


def reconcile(context: PoolContext, pool_id: str) -> str | None:
    """Reconcile a pool while its lane is held, so that nothing is booked between the reads.

    While another worker is in the lane, the wish is left on the walk's row, and the next walk sees to it.
    """
    try:
        with walk_lane(context, pool_id) as walk:
            return reconcile_in_lane(context, walk)
    except LaneBusy:
        with transaction(context.sessions) as session:
            session.execute(update(Walk).where(Walk.id == pool_id).values(reconciliation_wanted=True))
    except LeaseLost:
        log.info("reconciliation_waits", why="lease_lost")
    return None


def reconcile_in_lane(context: PoolContext, walk: Walk) -> str | None:
    """Reconcile at the walk's cursor; None when the books are not at a block's end, a service did not answer, or a loss is
    still being settled: its settlements would be booked between the reads."""
    pool_id = walk.id
    if walk.cursor_log_index < WHOLE_BLOCK or walk.status == WalkStatus.HALTED or walk.closing_block is not None:
        return None
    try:
        if context.rewards.settle(pool_id).settling:
            log.info("reconciliation_waits", why="a loss is being settled")
            return None
        book_reward_events(context, walk)
        run_ = _reconcile_at(context, walk)
        extend(context.sessions, walk, context.settings.lease_sec)
        audited = context.rewards.audit(pool_id, full=False).ok
        users = users_that_differ(context, walk)
    except (CallFailed, CallRefused, LaneBusy, WalkHalted) as error:
        log.info("reconciliation_waits", why=type(error).__name__)
        return None
    with transaction(context.sessions) as session:
        write_walk(context, session, walk, reconciliation_wanted=False)
    verdict = run_.verdict
    if verdict == "ok" and audited and not users:
        return verdict
    off = [line.name for line in run_.lines if not line.ok]
    off += [name for name, wrong in (("rewards_audit", not audited), ("users", bool(users))) if wrong]
    log.error("reconciliation_drift", pool_id=pool_id, block_number=run_.block_number, lines=off, users=users)
    pause_batches(context, pool_id, off)
    return "drift" if verdict == "ok" else verdict


def _reconcile_at(context: PoolContext, walk: Walk) -> Reconciliation:
    """One run. Requests in the middle of a money step make a difference that heals itself; the next run sees it
    gone."""
    pool = context.rewards.pool(walk.id)
    owed = pool.accrued_wei - pool.claimed_wei
    with transaction(context.sessions) as session:
        weight = pool.weight_wei + _left_but_not_requested(session, walk.id) - _company_faces(session, walk.id)
    message_id = effects.reconciliation(walk.id, walk.cursor_block, new_id())
    return context.protocols.reconcile(message_id, walk.cursor_block, owed, weight)


def _left_but_not_requested(session: Session, pool_id: str) -> int:
    """Wei that left the index for a batch whose NFTs the walk has not met yet: neither weight nor face."""
    total = session.scalar(
        select(func.coalesce(func.sum(Request.amount_wei), 0))
        .join(Batch, Batch.id == Request.batch_id)
        .where(Batch.pool_id == pool_id, Batch.kind == BatchKind.UNSTAKE, left_and_not_requested())
    )
    return exact_int(total)


def _company_faces(session: Session, pool_id: str) -> int:
    """Face wei of the company's own withdrawals that are not paid yet: among the faces on chain, and no user's."""
    total = session.scalar(
        select(func.coalesce(func.sum(CompanyWithdrawal.amount_wei), 0)).where(
            CompanyWithdrawal.pool_id == pool_id, CompanyWithdrawal.paid_wei.is_(None)
        )
    )
    return exact_int(total)
