"""The pool's serial lane: the walk, the booking of settled rewards, and the exit of an unstake batch never overlap."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from apps.common.database import transaction
from apps.flow.lanes import LaneBusy
from apps.flow.lease import acquire, give_back, select_due
from apps.pool.context import PoolContext
from apps.pool.models import Walk
from apps.pool.states import WalkStatus


@contextmanager
def walk_lane(context: PoolContext, pool_id: str) -> Iterator[Walk]:
    """Hold the pool's walk for the block, or raise `LaneBusy`. A walk that was asked for meanwhile is hinted at afterwards."""
    walk = acquire_walk(context, pool_id)
    if walk is None:
        raise LaneBusy
    try:
        yield walk
    finally:
        give_back(context.sessions, [walk])
        wake_walk(context, pool_id)


def wake_walk(context: PoolContext, pool_id: str) -> None:
    """Hint at the pool's walk where it is due: whoever asked for it while the lane was taken could not."""
    with transaction(context.sessions) as session:
        due = session.scalar(select_due(Walk).where(Walk.id == pool_id))
    if due is not None:
        context.publish("tasks.walk.run_pool", pool_id)


def acquire_walk(context: PoolContext, pool_id: str) -> Walk | None:
    """Lease the pool's walk, whose lease is the lane; None while another worker holds it. A pool's first walk begins here."""
    with transaction(context.sessions) as session:
        first = insert(Walk).values(id=pool_id, status=WalkStatus.WALKING, next_run_at=func.now())
        session.execute(first.on_conflict_do_nothing())
    rows = acquire(context.sessions, Walk, context.settings.lease_sec, row_id=pool_id, early=True)
    return rows[0] if rows else None
