"""What the relayer's web app and its pump work with; built once per process, from settings."""

from dataclasses import dataclass

from apps.common.database import Sessions
from apps.common.endpoints import Endpoints
from relayer.policy import Rules
from relayer.settings import RelayerSettings


@dataclass(frozen=True)
class RelayerContext:
    settings: RelayerSettings
    sessions: Sessions
    endpoints: Endpoints
    rules: Rules


def make_context(settings: RelayerSettings, sessions: Sessions) -> RelayerContext:
    """Build the collaborators; nothing is connected before first use."""
    rules = Rules(
        custody=settings.custody_address,
        operator=settings.operator_address,
        steth=settings.steth_address,
        queue=settings.queue_address,
        max_value_per_tx_wei=settings.max_value_per_tx_wei,
    )
    return RelayerContext(settings, sessions, Endpoints(settings.rpc_urls), rules)
