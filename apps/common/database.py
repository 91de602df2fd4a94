"""One engine per process, one way to open a transaction."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy import Engine, MetaData, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

# Their order matters: waiting for a lock ends before the statement does, and both before a client gives up. A
# transaction idle for 10 s means somebody holds row locks over a network call, which is a defect: better ended.
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 20_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000

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

    With `autocommit` a statement is a transaction and the only round trip: no BEGIN, COMMIT or ping; see
    `run_statement`.
    """
    options = (
        f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS} "
        f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c timezone=UTC"
    )
    return create_engine(
        database_url,
        isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=not autocommit,
        connect_args={"options": options, "connect_timeout": 5},
    )


def make_sessions(engine: Engine) -> Sessions:
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def transaction(sessions: Sessions) -> Iterator[Session]:
    """Open the one transaction of a service call: commit at the end of the block, roll back on any exception."""
    with sessions() as session, session.begin():
        yield session


def run_statement(
    engine: Engine, sql: str, values: Sequence[Any] | Mapping[str, Any]
) -> tuple[Any, ...] | None:  # fmt: skip
    """Run one statement of an autocommit engine, its transaction included; returns its first row.

    A connection that was lost meanwhile is no answer: the statement is run again, once. So it must be one that does
    its work once however often it is run. Raises `DBAPIError`.
    """
    try:
        return _run_statement(engine, sql, values)
    except DBAPIError as error:
        if error.connection_invalidated:
            return _run_statement(engine, sql, values)
        raise


def database_answers(sessions: Sessions) -> bool:
    """Health check: one round trip."""
    with sessions() as session:
        return bool(session.execute(text("SELECT 1")).scalar() == 1)


def schema_revision(sessions: Sessions) -> str | None:
    """The Alembic revision the database is at, or None before the first migration."""
    with sessions() as session:
        if session.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
            return None
        return session.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _run_statement(
    engine: Engine, sql: str, values: Sequence[Any] | Mapping[str, Any]
) -> tuple[Any, ...] | None:  # fmt: skip
    """By the driver itself: half of a small statement's time in Python would else be spent on describing it."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(sql, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row
    except psycopg2.Error as error:
        lost = bool(getattr(connection.dbapi_connection, "closed", True))
        if lost:
            connection.invalidate()
            engine.dispose()  # the others of the pool were made before this one broke, and are as likely dead
        # As everywhere else, so that whoever answers callers knows it.
        raise DBAPIError.instance(
            sql, None, error, psycopg2.Error, connection_invalidated=lost, dialect=engine.dialect
        ) from error
    finally:
        connection.close()
