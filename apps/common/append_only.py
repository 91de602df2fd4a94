"""The proof that the database refuses to change what was written, its owner included: tried at every start, not assumed.

Triggers can be switched off by a table's owner, lost in a restore, or made to sleep; then a log proves nothing.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from apps.common.database import is_transient
from apps.common.errors import AppendOnlyUnproven
from apps.common.wire import new_id

log = structlog.get_logger(__name__)

# TRUNCATE asks for the whole table before the guard can refuse. It asks briefly, so that no writer queues behind it; where
# other sessions write without a pause, the catalogue says whether the guard stands.
_TRUNCATE_TRIES = 5
_TRUNCATE_WAIT_MS = 50
_GUARD_STANDS = text(
    """
    SELECT count(*) FROM pg_trigger
    WHERE tgrelid = CAST(:table AS regclass) AND tgfoid = CAST('refuse_change' AS regproc) AND tgenabled = 'A'
      AND tgtype & 34 = 34  -- before, truncate
      AND tgqual IS NULL
    """
)

_REFUSED = {"AO001", "42501"}  # the guard's own code (`migrations.guards`), or a role that may not even try
_NOT_PERMITTED = "42501"
_UNDEFINED_TABLE = "42P01"
_LOCK_NOT_AVAILABLE = "55P03"


class NotAppendOnly(Exception):
    """The database accepts changes to what must never change; the service does not start."""


@dataclass(frozen=True)
class Attempt:
    """A change that must be refused. `prepare` makes a row to attack, where a guard looks at rows; both may name
    ``:probe``, an id that no other row has."""

    statement: str
    prepare: str | None = None


class Proof:
    """Tries each forbidden statement and requires the database to refuse it. Call `require` before the first write; the
    statements run once per process.

    `kept` maps each table that must not change to one of its columns, to try with; `more` are attempts of other kinds,
    and `not_emptied` further tables that must not be truncated.
    """

    def __init__(
        self,
        engine: Engine,
        kept: Mapping[str, str],
        *,
        more: Sequence[Attempt] = (),
        not_emptied: Sequence[str] = (),
    ) -> None:
        self._engine = engine
        self._attempts = [
            *(Attempt(f"UPDATE {table} SET {name} = {name} WHERE false") for table, name in kept.items()),  # noqa: S608
            *(Attempt(f"DELETE FROM {table} WHERE false") for table in kept),  # noqa: S608
            *more,
        ]
        # CASCADE reaches every table that refers to these.
        self._truncates = {f"TRUNCATE {table} CASCADE": table for table in (*kept, *not_emptied)}
        self._lock = threading.Lock()
        self._had = False

    def at_start(self) -> None:
        """Prove it; raises `NotAppendOnly`. A database that cannot answer yet is asked before the first write."""
        try:
            self.require()
        except AppendOnlyUnproven:
            log.warning("append_only_unproven")

    def require(self) -> None:
        """Return once it is proved. Raises `AppendOnlyUnproven` while the database cannot say, `NotAppendOnly`."""
        if self._had:
            return
        with self._lock:
            if not self._had:
                try:
                    self._prove()
                except DBAPIError as error:
                    if not is_transient(error) and getattr(error.orig, "pgcode", None) != _UNDEFINED_TABLE:
                        raise
                    raise AppendOnlyUnproven from error
                self._had = True

    def _prove(self) -> None:
        """Try each forbidden change with the service's own database role, in transactions that are rolled back.

        Every attempt is also made under ``session_replication_role = replica``, where ordinary triggers and foreign
        keys do not fire, where the role is allowed to set it.
        """
        accepted = []
        for replica in (False, True):
            how = " as a replica" if replica else ""
            accepted += [
                f"{attempt.statement}{how}" for attempt in self._attempts if not self._refused(attempt, replica=replica)
            ]
            accepted += [
                f"{statement}{how}"
                for statement, table in self._truncates.items()
                if not self._truncate_refused(statement, table, replica=replica)
            ]
        if accepted:
            raise NotAppendOnly(f"The database accepts: {'; '.join(accepted)}. Has every migration run, unchanged?")

    def _refused(self, attempt: Attempt, *, replica: bool) -> bool:
        """Whether a change is refused as it should be; anything else that goes wrong proves nothing and is raised."""
        probe = {"probe": new_id()}
        try:
            with self._engine.connect() as connection, connection.begin() as change:
                if replica:
                    _become_replica(connection)
                if attempt.prepare is not None:
                    connection.execute(text(attempt.prepare), probe)
                connection.execute(text(attempt.statement), probe if ":probe" in attempt.statement else {})
                change.rollback()
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in _REFUSED:
                raise
            return True
        return False

    def _truncate_refused(self, statement: str, table: str, *, replica: bool) -> bool:
        for _try in range(_TRUNCATE_TRIES):
            try:
                with self._engine.connect() as connection, connection.begin() as change:
                    if replica:
                        _become_replica(connection)
                    connection.execute(text(f"SET LOCAL lock_timeout = {_TRUNCATE_WAIT_MS}"))
                    connection.execute(text(statement))
                    change.rollback()
            except DBAPIError as error:
                code = getattr(error.orig, "pgcode", None)
                if code in _REFUSED:
                    return True
                if code != _LOCK_NOT_AVAILABLE:
                    raise
            else:
                return False
        with self._engine.connect() as connection:
            return bool(connection.execute(_GUARD_STANDS, {"table": table}).scalar_one())


def _become_replica(connection: Connection) -> None:
    """Switch off ordinary triggers and foreign keys for the transaction. A role without the right to do so goes on with them
    in force: it could not attack this way either."""
    attempt = connection.begin_nested()
    try:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    except DBAPIError as error:
        attempt.rollback()
        if getattr(error.orig, "pgcode", None) != _NOT_PERMITTED:
            raise
