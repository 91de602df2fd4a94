"""Alembic environment of the pool database."""

from apps.pool.models import Base
from migrations.runner import run

run(Base.metadata)
