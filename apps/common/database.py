"""One engine per process, one way to open a transaction."""

import select
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import ColumnElement, Engine, MetaData, Text, any_, cast, create_engine, event, literal, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from apps.common.arrays import array
from apps.common.crashpoint import crashpoint

# Their order matters: waiting for a lock ends before the statement does, and both before a client gives up. A
# transaction idle for 10 s holds row locks over a network call, which is a defect: better ended.
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 20_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
# A server whose machine has failed does not even close the connection: without these a call to it waits for hours.
# `target_session_attrs`: during a failover the old server is read-only, so that each new connection tries the next host.
LINE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": STATEMENT_TIMEOUT_MS + 5_000,
    "target_session_attrs": "read-write",
}
# SQLSTATEs of a connection whose server no longer serves: it is read-only now, was shut down or has crashed.
# It is thrown away with all that were made before it; else each of them would fail once more, or at every use.
_READ_ONLY = "25006"
_SERVER_LEFT = (_READ_ONLY, "57P01", "57P02", "57P03", "57P05", "25P03")
# The same statement may succeed later: connection, resource, operator intervention, deadlock and system errors.
_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58")
_TRANSIENT = (*_SERVER_LEFT, "55P03")
# A server that goes closes its connections, which is seen without asking it; one whose machine has failed says nothing, so
# that a connection unused for longer is asked first.
TRUSTED_IDLE_SEC = 1.0
_UNUSED_SINCE = "unused_since"

Sessions = sessionmaker[Session]

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def new_metadata() -> MetaData:
    """Metadata with named constraints, so that migrations can drop what they made."""
    return MetaData(naming_convention=NAMING)


def make_engine(database_url: str, *, pool_size: int = 8, autocommit: bool = False) -> Engine:
    """Make an engine for psycopg2, READ COMMITTED. It connects at first use, never here.

    With `autocommit` a statement is a transaction and the only round trip: no BEGIN or COMMIT; see `run_statement`.
    A connection is asked whether it lives only where there is reason to doubt it; see `_ask_if_in_doubt`.
    """
    options = (
        f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
        f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c timezone=UTC"
    )
    line = {name: value for name, value in LINE.items() if name not in make_url(database_url).query}
    engine = create_engine(
        database_url,
        isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
        pool_size=pool_size,
        max_overflow=2,
        pool_timeout=10,
        connect_args={"options": options, **line},
    )
    event.listen(engine, "handle_error", _throw_away)
    event.listen(engine, "checkin", _note_unused)
    event.listen(engine, "checkout", _ask_if_in_doubt)
    return engine


def make_sessions(engine: Engine) -> Sessions:
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def transaction(sessions: Sessions) -> Iterator[Session]:
    """Open the one transaction of a service call: commit at the end of the block, roll back on any exception."""
    with sessions() as session, session.begin():
        yield session
        crashpoint("transaction.committing")
    crashpoint("transaction.committed")


def one_of(
    column: InstrumentedAttribute[str] | InstrumentedAttribute[str | None], values: Sequence[str]
) -> ColumnElement[bool]:
    """Whether a text column holds one of these, as one parameter however many they are."""
    return column == any_(text_array(values))


def text_array(values: Iterable[str]) -> ColumnElement[Any]:
    """An array of texts as one parameter; as a list of constants the server takes longer to read it than to use it."""
    return cast(literal(array(values), Text), ARRAY(Text))


def run_statement(engine: Engine, sql: str, values: Sequence[Any] | Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Run one statement, its transaction included; returns its first row.

    A connection that was lost meanwhile, or leads to a server that has become read-only, is no answer: the statement
    is run again, once, on a new one. So it must be one that does its work once however often it is run. None where it has
    no row to tell of. Raises `DBAPIError`, also where there is no connection to be had.
    """
    try:
        rows = run_statement_once(engine, sql, values)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        rows = run_statement_once(engine, sql, values)
    return rows[0] if rows else None


def run_statement_once(
    engine: Engine, sql: str, values: Sequence[Any] | Mapping[str, Any]
) -> list[tuple[Any, ...]]:  # a column each, as the driver reads it
    """Run one statement as a transaction of its own: one round trip, no BEGIN and no COMMIT; returns its rows.

    Uses psycopg2 directly. SQLAlchemy's result metadata costs about half the Python time of a one-row statement. Raises
    `DBAPIError`, also where there is no connection to be had.
    """
    try:
        connection = engine.raw_connection()
    except psycopg2.Error as error:
        raise _named(engine, sql, error, lost=False) from error
    line: Any = connection.dbapi_connection
    in_transactions = not line.autocommit
    try:
        line.autocommit = True  # a word between us and the driver, not the server
        with line.cursor() as cursor:
            crashpoint("statement.committing")
            cursor.execute(sql, values)
            crashpoint("statement.committed")
            rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return rows
    except psycopg2.Error as error:
        lost = bool(line.closed) or error.pgcode in _SERVER_LEFT
        if lost:
            connection.invalidate()
            engine.dispose()  # the others of the pool were made before this one broke, and are as likely dead
        raise _named(engine, sql, error, lost=lost) from error
    finally:
        if in_transactions and not line.closed:
            line.autocommit = False
        connection.close()


def engine_of(sessions: Sessions) -> Engine:
    """The engine that sessions are made of."""
    engine: Engine = sessions.kw["bind"]
    return engine


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later, the database being what is away: no connection to be had or a lost one,
    a server that takes no writes, shuts down or is full, a lock or statement timeout, a deadlock."""
    if isinstance(error, NoFreeConnection):
        return True
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "pgcode", None)
    # psycopg2 gives no SQLSTATE when the connection was refused or lost.
    return error.connection_invalidated or code is None or code[:2] in _TRANSIENT_CLASSES or code in _TRANSIENT


def database_answers(sessions: Sessions) -> bool:
    """Health check: one round trip. Says no, and lets all connections go, where the database takes no writes."""
    with sessions() as session:
        read_only = session.execute(
            text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool")
        )
        answers = not read_only.scalar()
        engine = session.get_bind()
    if not answers and isinstance(engine, Engine):
        engine.dispose()
    return answers


def schema_revision(sessions: Sessions) -> str | None:
    """The Alembic revision the database is at, or None before the first migration."""
    with sessions() as session:
        if session.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
            return None
        return session.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _named(engine: Engine, sql: str, error: psycopg2.Error, *, lost: bool) -> DBAPIError:
    """A driver's error as SQLAlchemy would raise it, so that the error handlers know it."""
    found = DBAPIError.instance(sql, None, error, psycopg2.Error, connection_invalidated=lost, dialect=engine.dialect)
    assert isinstance(found, DBAPIError)  # of a driver's error nothing else is made
    return found


def _note_unused(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info[_UNUSED_SINCE] = time.monotonic()


def _ask_if_in_doubt(connection: Any, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """Ask a connection whether its server still answers, by an empty statement, before it is used again; where it does not,
    every connection made before goes, and a new one is made.

    A round trip before every transaction would be a quarter of what a short one costs. A server that shuts down, crashes
    or ends the session leaves something to read on the line, a message or its end, which is looked for at each use; else
    nothing is there to read. What a line does not show is doubted after `TRUSTED_IDLE_SEC`.
    """
    unused_since = entry.info.get(_UNUSED_SINCE)
    if unused_since is None:  # it was made just now
        return
    if time.monotonic() - unused_since < TRUSTED_IDLE_SEC and not _has_news(connection):
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not connection.autocommit:
            connection.rollback()
    except psycopg2.Error as error:
        raise InvalidatePoolError from error


def _has_news(connection: Any) -> bool:
    """Whether something is there to be read from an idle connection's line."""
    if connection.closed:
        return True
    line = select.poll()
    line.register(connection.fileno(), select.POLLIN)
    return bool(line.poll(0))


def _throw_away(context: ExceptionContext) -> None:
    """Drop every connection made before this one failed, where the failure says that the server no longer serves."""
    if getattr(context.original_exception, "pgcode", None) in _SERVER_LEFT:
        context.is_disconnect = True
