"""HTTP clients of a running stack's five services, as the BFF and ops have them."""

from dataclasses import dataclass

from apps.clients.ledger import LedgerClient
from apps.clients.pool import PoolClient
from apps.clients.protocols import ProtocolsClient
from apps.clients.relayer import RelayerClient
from apps.clients.rewards import RewardsClient


@dataclass(frozen=True)
class Clients:
    """The five services."""

    ledger: LedgerClient
    rewards: RewardsClient
    protocols: ProtocolsClient
    pool: PoolClient
    relayer: RelayerClient


def connect(urls: dict[str, str], internal_key: str, relayer_key: str) -> Clients:
    return Clients(
        ledger=LedgerClient(urls["ledger"], internal_key),
        rewards=RewardsClient(urls["rewards"], internal_key),
        protocols=ProtocolsClient(urls["protocols"], internal_key, timeout=30),
        pool=PoolClient(urls["pool"], internal_key),
        relayer=RelayerClient(urls["relayer"], relayer_key),
    )
