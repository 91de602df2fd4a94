"""Alembic environment of the protocols database."""

from migrations.runner import run
from apps.protocols.models import Base

run(Base.metadata)
