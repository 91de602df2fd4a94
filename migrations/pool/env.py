"""Alembic environment of the pool database."""

from migrations.runner import run
from apps.pool.models import Base

run(Base.metadata)
