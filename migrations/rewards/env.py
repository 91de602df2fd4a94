"""Alembic environment of the rewards database."""

from migrations.runner import run
from apps.rewards.models import Base

run(Base.metadata)
