"""What the relayer's web app and its pump work with; built once per process, from settings."""

from dataclasses import dataclass, field

from apps.common.database import Sessions
from apps.ethereum.endpoints import Endpoints
from apps.ethereum.payees import ProtocolAddresses
from relayer.settings import RelayerSettings
from relayer.signing.policy import Rules


@dataclass(frozen=True)
class RelayerContext:
    settings: RelayerSettings
    sessions: Sessions
    endpoints: Endpoints
    rules: Rules
    protocol: ProtocolAddresses
    # Where a sender's line is longer than one tick considers: the `seq` up to which the last tick went, see
    # `relayer.lifecycle.candidates`.
    considered: dict[str, int] = field(default_factory=dict)


def make_context(settings: RelayerSettings, sessions: Sessions) -> RelayerContext:
    """Build the collaborators; nothing is connected before first use."""
    rules = Rules(
        custody=settings.custody_address,
        operator=settings.operator_address,
        steth=settings.steth_address,
        queue=settings.queue_address,
        max_value_per_tx_wei=settings.max_value_per_tx_wei,
        max_value_per_day_wei=settings.max_value_per_day_wei,
        keys=frozenset(settings.keyring.addresses),
        max_payout_per_tx_wei=settings.max_payout_per_tx_wei,
        max_payout_per_day_wei=settings.max_payout_per_day_wei,
    )
    endpoints = Endpoints(settings.rpc_urls)
    return RelayerContext(settings, sessions, endpoints, rules, ProtocolAddresses(settings.steth_address))
