"""Alembic environment of the ledger database."""

from migrations.runner import run
from apps.ledger.models import Base

run(Base.metadata)
