"""The proof that the database refuses to change what was written: tried out at every start, not assumed."""

import threading

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from apps.common.errors import is_transient
from apps.common.wire import new_id
from apps.ledger.errors import AppendOnlyUnproven

log = structlog.get_logger(__name__)

_CHANGES = (
    "UPDATE message_keys SET message_id = message_id",
    "DELETE FROM message_keys",
    "UPDATE refusals SET code = code",
    "DELETE FROM refusals",
    "UPDATE movements SET amount_wei = amount_wei",
    "DELETE FROM movements",
    "UPDATE system_checkpoints SET sum_wei = sum_wei",
    "DELETE FROM system_checkpoints",
    "UPDATE audits SET ok = ok",
    "DELETE FROM audits",
    "DELETE FROM balances",
    "UPDATE balances SET updated_at = now()",  # passes every constraint, and follows no movement
)
# CASCADE reaches every table that refers to these.
_TRUNCATES = {
    f"TRUNCATE {table} CASCADE": table
    for table in ("message_keys", "refusals", "movements", "balances", "system_checkpoints", "audits")
}
# TRUNCATE asks for the whole table before the guard can refuse. It asks briefly, so that postings do not queue behind
# it; where others post without a pause, the catalogue says whether the guard stands.
_TRUNCATE_TRIES = 5
_TRUNCATE_WAIT_MS = 50
_GUARD_STANDS = text(
    """
    SELECT count(*) FROM pg_trigger
    WHERE tgrelid = CAST(:table AS regclass) AND tgfoid = CAST('refuse_change' AS regproc) AND tgenabled = 'A'
      AND tgtype & 34 = 34  -- before, truncate
    """
)

_REFUSED = {"AO001", "42501"}  # the guard's own code, or a role that may not even try
_NOT_PERMITTED = "42501"
_UNDEFINED_TABLE = "42P01"
_LOCK_NOT_AVAILABLE = "55P03"


class NotAppendOnly(Exception):
    """The database accepts changes to what must never change; the service does not start."""


class Proof:
    """Had once per process, before the first movement is posted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._had = False

    def at_start(self) -> None:
        """Prove it; raises `NotAppendOnly`. A database that cannot answer yet is asked before the first posting."""
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
                    prove_append_only(self._engine)
                except DBAPIError as error:
                    if not is_transient(error) and getattr(error.orig, "pgcode", None) != _UNDEFINED_TABLE:
                        raise
                    raise AppendOnlyUnproven from error
                self._had = True


def prove_append_only(engine: Engine) -> None:
    """Try to change history as this very role, in transactions that are rolled back; raises `NotAppendOnly`.

    Every attempt is also made under ``session_replication_role = replica``, where ordinary triggers and foreign keys
    sleep, as far as the role may set that.
    """
    accepted = [
        f"{statement} (as replica)" if replica else statement
        for replica in (False, True)
        for statement in (*_CHANGES, *_TRUNCATES)
        if not _refused(engine, statement, replica=replica)
    ]
    if accepted:
        raise NotAppendOnly(f"The database accepts: {'; '.join(accepted)}. Has every migration run, unchanged?")


def _refused(engine: Engine, statement: str, *, replica: bool) -> bool:
    """Whether a statement is refused as it should be; anything else that goes wrong proves nothing and is raised."""
    for _try in range(_TRUNCATE_TRIES):
        try:
            _attempt(engine, statement, replica=replica)
        except DBAPIError as error:
            code = getattr(error.orig, "pgcode", None)
            if code in _REFUSED:
                return True
            if code != _LOCK_NOT_AVAILABLE or statement not in _TRUNCATES:
                raise
        else:
            return False
    with engine.connect() as connection:
        return bool(connection.execute(_GUARD_STANDS, {"table": _TRUNCATES[statement]}).scalar_one())


def _attempt(engine: Engine, statement: str, *, replica: bool) -> None:
    """Run one change and roll it back."""
    probe = new_id()
    with engine.connect() as connection, connection.begin() as attempt:
        if replica:
            _become_replica(connection)
        if statement in _TRUNCATES:
            connection.execute(text(f"SET LOCAL lock_timeout = {_TRUNCATE_WAIT_MS}"))
            connection.execute(text(statement))
        else:
            # A row of its own to attack: the guards of balances look at rows. The others need none, and meet none.
            connection.execute(
                text("INSERT INTO balances (pool_id, user_id) VALUES (:probe, :probe)"), {"probe": probe}
            )
            where = "pool_id = :probe" if "balances" in statement else "false"
            connection.execute(text(f"{statement} WHERE {where}"), {"probe": probe} if "balances" in statement else {})
        attempt.rollback()


def _become_replica(connection: Connection) -> None:
    """As far as this role may; one that may not cannot attack that way."""
    attempt = connection.begin_nested()
    try:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    except DBAPIError as error:
        attempt.rollback()
        if getattr(error.orig, "pgcode", None) != _NOT_PERMITTED:
            raise
