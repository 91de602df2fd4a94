"""Proof, at every start, that the database itself refuses to change the log, whoever asks.

Triggers can be switched off by a table's owner, lost in a restore, or made to sleep; then the log proves nothing. So it
is tried, on a row that is never committed.
"""

import threading

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.errors import is_transient

log = structlog.get_logger(__name__)

_UNDEFINED_TABLE = "42P01"
_REFUSED = {"23001", "42501"}  # restrict_violation, of our trigger; insufficient_privilege
_AS_REPLICA = "SET LOCAL session_replication_role = replica"  # under which ordinary triggers sleep
_PROBE = (
    "INSERT INTO reward_events (pool_id, kind, message_id, acc_reward_per_share)"
    " VALUES ('@probe', 'claim', gen_random_uuid(), 0)"  # a name of its own: nobody's message stands in its way
)
_UPDATE = "UPDATE reward_events SET claimed_wei = 1 WHERE pool_id = '@probe'"
_DELETE = "DELETE FROM reward_events WHERE pool_id = '@probe'"
_ATTEMPTS = {
    "UPDATE": (_UPDATE,),
    "DELETE": (_DELETE,),
    "UPDATE as a replica": (_AS_REPLICA, _UPDATE),
    "DELETE as a replica": (_AS_REPLICA, _DELETE),
}
# TRUNCATE is not tried but looked up: its lock would stop every reader and writer of a running house. The trigger must
# fire before (2) TRUNCATE (32), always ('A'), unconditionally, and call the function that the attempts have proven.
_TRUNCATE_IS_REFUSED = text(
    "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'reward_events'::regclass AND tgenabled = 'A'"
    " AND tgtype & 34 = 34 AND tgqual IS NULL AND tgfoid = 'refuse_change'::regproc)"
)


class NotAppendOnly(RuntimeError):
    """The database accepts changes of ``reward_events``; the service must not run on it."""


class Proof:
    """Had once a process, before anything is written."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._lock = threading.Lock()
        self._had = False

    def at_start(self) -> None:
        """Raise `NotAppendOnly`; a database that cannot answer yet, or is not migrated yet, is asked at first use."""
        try:
            self.require()
        except DBAPIError as error:
            if not is_transient(error) and getattr(error.orig, "pgcode", None) != _UNDEFINED_TABLE:
                raise
            log.warning("append_only_unproven")

    def require(self) -> None:
        """Return once it is proven. Raises `NotAppendOnly`, or the driver's error while the database cannot say."""
        if self._had:
            return
        with self._lock:
            if not self._had:
                prove_append_only(self._sessions)
                self._had = True


def prove_append_only(sessions: Sessions) -> None:
    """Try to change the log, undo everything, and raise `NotAppendOnly` naming what was accepted."""
    with transaction(sessions) as session:
        probe = session.begin_nested()
        session.execute(text(_PROBE))
        accepted = [name for name, statements in _ATTEMPTS.items() if _accepts(session, statements)]
        if not session.scalar(_TRUNCATE_IS_REFUSED):
            accepted.append("TRUNCATE")
        probe.rollback()
    if accepted:
        raise NotAppendOnly(f"reward_events accepts: {', '.join(accepted)}. Restore its triggers from the migration.")


def _accepts(session: Session, statements: tuple[str, ...]) -> bool:
    attempt = session.begin_nested()
    try:
        for statement in statements:
            session.execute(text(statement))
    except DBAPIError as error:
        attempt.rollback()
        if getattr(error.orig, "pgcode", None) not in _REFUSED:
            raise
        return False
    attempt.rollback()
    return True
