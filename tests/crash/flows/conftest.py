"""All services on the module's node, as in `tests/integration/flows`."""

from tests.integration.flows.conftest import flows, flows_settings

__all__ = ["flows", "flows_settings"]
