"""Alembic environment of the relayer database."""

from migrations.runner import run
from relayer.store.models import Base

run(Base.metadata)
