"""The pool's serial lane: the walk, the booking of settled rewards, and the exit of an unstake batch never overlap."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert

from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import LaneBusy
from apps.pool.flows.leases import claim
from apps.pool.models import Walk


@contextmanager
def walk_lane(context: PoolContext, pool_id: str) -> Iterator[Walk]:
    """Hold the pool's walk for the block, or raise `LaneBusy`."""
    _ensure(context, pool_id)
    rows = claim(context.sessions, Walk, context.settings.lease_sec, row_id=pool_id, early=True)
    if not rows:
        raise LaneBusy
    walk = rows[0]
    try:
        yield walk
    finally:
        _release(context, walk)


def _ensure(context: PoolContext, pool_id: str) -> None:
    with transaction(context.sessions) as session:
        session.execute(
            insert(Walk).values(id=pool_id, status="walking", next_run_at=func.now()).on_conflict_do_nothing()
        )


def _release(context: PoolContext, walk: Walk) -> None:
    with transaction(context.sessions) as session:
        session.execute(
            update(Walk)
            .where(Walk.id == walk.id, Walk.lease_token == walk.lease_token)
            .values(lease_token=None, lease_until=None, attempts=0),
            execution_options={"synchronize_session": False},
        )
