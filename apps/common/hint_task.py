"""What every task is: work on rows that a hint only pointed at, so that a database that is away costs a moment."""

from typing import Any

import structlog
from celery import Task
from redis import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from apps.common.celery_settings import REQUEST_ID_HEADER
from apps.common.database import is_transient
from apps.common.doorbell import doorbell_of
from apps.common.wire import MESSAGE_ID, new_id, request_id_of

log = structlog.get_logger(__name__)


class HintTask(Task[Any, Any]):
    """Binds to every log line of a task its name and id, the row's id that the hint names, and the id of the HTTP request
    that the hint was sent for, or a new one; `apps.clients.base` passes that on to other services.

    Where the database is away the task ends with one line: the row keeps its state, its lease runs out, and the sweep
    hints again. A stack trace for each hint would bury what matters.

    A task with `rest_ms` looks at everything of its kind, and again on a schedule of its own: hints that come so soon after
    its start are left out, so that a burst costs it few looks.
    """

    abstract = True
    rest_ms: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = (self.request.headers or {}).get(REQUEST_ID_HEADER)
        bound = {"task": self.name, "task_id": self.request.id, "request_id": request_id_of(given) or new_id()}
        # Whatever reaches the broker can send a hint, so only text that can be an id goes into the log.
        if args and isinstance(args[0], str) and MESSAGE_ID.fullmatch(args[0]):
            bound["row_id"] = args[0]
        with structlog.contextvars.bound_contextvars(**bound):
            self._answer_doorbell(args)
            try:
                return super().__call__(*args, **kwargs)
            except (DBAPIError, NoFreeConnection) as error:
                if not is_transient(error):
                    raise
                log.warning("database_unavailable", kind=type(error).__name__)
                return None

    def _answer_doorbell(self, args: tuple[Any, ...]) -> None:
        """Before the first look at a row: a hint that is sent from now on may be about what this task does not see."""
        row_id = args[0] if args else None
        try:
            name = row_id if isinstance(row_id, str) else None
            doorbell_of(str(self.app.conf.broker_url)).answer(self.name, name, self.rest_ms)
        except RedisError as error:  # the mark runs out by itself
            log.warning("doorbell_not_answered", kind=type(error).__name__)
