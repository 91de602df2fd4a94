"""Alembic environment of the relayer database."""

from migrations.runner import run
from relayer.models import Base

run(Base.metadata)
