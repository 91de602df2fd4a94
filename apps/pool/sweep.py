"""The sweep: wakes whatever nobody woke, and whatever a dead worker left leased. It makes the flows certain, not
fast."""

from typing import Any

from sqlalchemy import func, or_, select, update

from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.leases import seconds
from apps.pool.models import Batch, Request, Walk
from apps.pool.schedules import mark_sweep

HINT_AGAIN_SEC = 5.0
MAX_HINTS = 200
_TASKS: dict[Any, str] = {
    Request: "tasks.requests.advance",
    Batch: "tasks.batches.advance",
    Walk: "tasks.walk.run_pool",
}


def wake(context: PoolContext) -> int:
    """Publish a hint for each due row that has none under way; returns how many.

    The throttle is per row: without it a backlog that workers have not reached yet is hinted again every second.
    """
    hints: list[tuple[str, str]] = []
    with transaction(context.sessions) as session:
        mark_sweep(session, context.settings.lease_sec)
        for model, task in _TASKS.items():
            due = (
                select(model.id)
                .where(
                    model.next_run_at <= func.now(),
                    or_(model.lease_until.is_(None), model.lease_until < func.now()),
                    or_(model.hinted_at.is_(None), model.hinted_at < func.now() - seconds(HINT_AGAIN_SEC)),
                )
                .order_by(model.next_run_at)
                .limit(MAX_HINTS)
                .with_for_update(skip_locked=True)
            )
            found = session.scalars(
                update(model)
                .where(model.id.in_(due.scalar_subquery()))
                .values(hinted_at=func.now())
                .returning(model.id),
                execution_options={"synchronize_session": False},
            )
            hints.extend((task, row_id) for row_id in found)
    for task, row_id in hints:
        context.publish(task, row_id)
    return len(hints)
