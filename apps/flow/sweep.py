"""The sweep: hints at each kind of flow that has a due row, whatever became of the hints before. It makes flows certain, not
fast; a row that a dead worker left leased is due again when its lease has run out."""

from collections.abc import Callable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.flow.hints import Publish
from apps.flow.lease import select_due
from apps.flow.row import FlowMixin

MAX_HINTS = 200


def wake(
    sessions: Sessions,
    publish: Publish,
    flows: Mapping[type[FlowMixin], str],
    by_id: Mapping[type[FlowMixin], str] | None = None,
    before: Callable[[Session], object] | None = None,
) -> int:
    """Publish one hint for each kind of `flows` with a due row, and one for each due row of the kinds `by_id`, whose tasks
    take the one row they are told; returns how many. `before` runs first in the same transaction.

    A hint that is under way already is not sent again (`apps.common.celery_settings`).
    """
    hints: list[tuple[str, str | None]] = []
    with transaction(sessions) as session:
        if before is not None:
            before(session)
        for model, task in flows.items():
            if session.scalar(select(select_due(model).exists())):
                hints.append((task, None))
        for model, task in (by_id or {}).items():
            due = select_due(model).order_by(model.next_run_at).limit(MAX_HINTS)
            hints.extend((task, row_id) for row_id in session.scalars(due))
    for task, row_id in hints:
        publish(task, row_id)
    return len(hints)
