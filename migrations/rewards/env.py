"""Alembic environment of the rewards database."""

from apps.rewards.models import Base
from migrations.runner import run

run(Base.metadata)
