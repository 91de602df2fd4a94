"""A protocol on a node for whoever asks, as in `tests/integration`."""

from tests.integration.conftest import deployed, desk

__all__ = ["deployed", "desk"]
