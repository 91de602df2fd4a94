"""The sweep: hints at every due row that has no hint under way, and at what a dead worker left leased. It makes flows
certain, not fast."""

from collections.abc import Callable, Mapping

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.flow.hints import Publish
from apps.flow.row import FlowMixin, seconds

HINT_AGAIN_SEC = 5.0
MAX_HINTS = 200


def wake(
    sessions: Sessions,
    publish: Publish,
    flows: Mapping[type[FlowMixin], str],
    before: Callable[[Session], object] | None = None,
) -> int:
    """Publish a hint for each due row; returns how many. `flows` names the task of each kind of row; `before` runs first in
    the same transaction.

    The throttle is per row: without it a backlog that workers have not reached yet is hinted again every second.
    """
    hints: list[tuple[str, str]] = []
    with transaction(sessions) as session:
        if before is not None:
            before(session)
        for model, task in flows.items():
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
        publish(task, row_id)
    return len(hints)
