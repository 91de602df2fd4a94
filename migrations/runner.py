"""Run a database's migrations: one at a time everywhere, each in its own transaction, never waiting long for a lock."""

import os
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, pool, text

from apps.common.settings import normalise_database_url

SERVICES = ("ledger", "protocols", "rewards", "pool", "relayer")
INI = Path(__file__).parent / "alembic.ini"


def upgrade(service: str, database_url: str, revision: str = "head") -> None:
    command.upgrade(_config(service, database_url), revision)


def downgrade(service: str, database_url: str, revision: str = "base") -> None:
    command.downgrade(_config(service, database_url), revision)


def check(service: str, database_url: str) -> None:
    """Raise when the models have drifted from the migrations."""
    command.check(_config(service, database_url))


def run(metadata: MetaData) -> None:
    """Called by each environment's ``env.py``."""
    url = context.config.get_main_option("sqlalchemy.url") or os.environ["DATABASE_URL"]
    engine = create_engine(normalise_database_url(url), poolclass=pool.NullPool)
    with engine.connect() as connection:
        # Two deployments at once must not migrate at once; a lock queue behind a migration must not stop the service.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SELECT pg_advisory_lock(hashtext('alembic'))"))
        connection.commit()
        context.configure(
            connection=connection, target_metadata=metadata, transaction_per_migration=True, compare_type=False
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(hashtext('alembic'))"))
        connection.commit()
    engine.dispose()


def _config(service: str, database_url: str) -> Config:
    if service not in SERVICES:
        raise ValueError(f"no such service: {service}; one of {', '.join(SERVICES)}")
    config = Config(str(INI), ini_section=service)
    config.set_main_option("sqlalchemy.url", normalise_database_url(database_url).replace("%", "%%"))
    return config
