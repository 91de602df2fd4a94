"""What every task is: work on rows that a hint only pointed at, so that a database that is away costs a moment."""

from typing import Any

import structlog
from celery import Task
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from apps.common.database import is_transient

log = structlog.get_logger(__name__)


class HintTask(Task[Any, Any]):
    """Ends with one line where the database is away: the row keeps its state, its lease runs out, and the sweep hints
    again. A trace for each hint would bury what matters."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except (DBAPIError, NoFreeConnection) as error:
            if not is_transient(error):
                raise
            log.warning("database_unavailable", task=self.name, kind=type(error).__name__)
            return None
