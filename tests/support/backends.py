"""Ends a database backend at a chosen statement of a service, as a crash of the database would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text


class BackendKiller:
    """Watches the statements and commits of an engine; armed with n, it ends the backend just before the n-th."""

    def __init__(self, engine: Engine) -> None:
        self.killed = False
        self._left = 0
        self._admin = create_engine(engine.url, isolation_level="AUTOCOMMIT")
        event.listen(engine, "before_cursor_execute", self._on_statement)
        event.listen(engine, "commit", self._on_commit)

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        """Within the block, the `number`-th statement from now, from 1, finds its backend gone; 0 is never."""
        self._left, self.killed = number, False
        try:
            yield
        finally:
            self._left = 0

    def _on_statement(self, connection: Connection, cursor: Any, *_: Any) -> None:
        self._count(cursor.connection.info.backend_pid)

    def _on_commit(self, connection: Connection) -> None:
        self._count(connection.connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]

    def _count(self, pid: int) -> None:
        if self._left == 0:
            return
        self._left -= 1
        if self._left > 0:
            return
        self.killed = True
        with self._admin.connect() as admin:
            # Waits up to 10 s until it is gone, and says whether it is.
            assert admin.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})


def killed_everywhere(killer: BackendKiller, call: Callable[[], Any], left: Callable[[], object]) -> Any:
    """Make a call again and again, its backend ended before its first statement, its second, and so on: each is answered 503
    and leaves nothing. Returns the answer of the one that was not disturbed."""
    number = 0
    while True:
        number += 1
        before = left()
        with killer.at(number):
            answer = call()
        if not killer.killed:
            break
        assert answer.status_code == 503, number
        assert left() == before, number
    assert number > 5
    return answer
