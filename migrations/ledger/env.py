"""Alembic environment of the ledger database."""

from apps.ledger.models import Base
from migrations.runner import run

run(Base.metadata)
