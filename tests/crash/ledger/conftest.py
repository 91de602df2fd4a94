"""The ledger under test."""

from tests.support.ledger import ledger

__all__ = ["ledger"]
