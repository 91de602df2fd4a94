"""Alembic environment of the protocols database."""

from apps.protocols.models import Base
from migrations.runner import run

run(Base.metadata)
