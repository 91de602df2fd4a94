"""What the pool's service and flows work with; built once per process, from settings."""

from dataclasses import dataclass

from sqlalchemy import Engine

from apps.clients.ledger import LedgerClient
from apps.clients.protocols import ProtocolsClient
from apps.clients.relayer import RelayerClient
from apps.clients.rewards import RewardsClient
from apps.common.database import Sessions, make_engine, make_sessions
from apps.flow.hints import Publish, publisher
from apps.pool.look import Look
from apps.pool.settings import PoolSettings

QUEUE = "pool"
# What waits for callers' servers has a queue of its own, so that no money waits for them.
QUEUES_APART = {"tasks.webhooks.": "webhooks"}


@dataclass(frozen=True)
class PoolContext:
    """`writer` is in autocommit: what it runs is one statement and its own transaction. `readers` are sessions of it, for reads
    that need no BEGIN and COMMIT around them: under READ COMMITTED each statement sees what is committed by then anyway."""

    settings: PoolSettings
    sessions: Sessions
    writer: Engine
    readers: Sessions
    ledger: LedgerClient
    rewards: RewardsClient
    protocols: ProtocolsClient
    relayer: RelayerClient
    publish: Publish
    look: Look


def pool_publisher(settings: PoolSettings) -> Publish:
    """Publishes hints at the pool's tasks, each to its queue; never raises."""
    return publisher(settings.broker_url, QUEUE, QUEUES_APART)


def make_context(settings: PoolSettings, publish: Publish) -> PoolContext:
    """Build the collaborators; nothing is connected before first use."""
    key = settings.internal_keys[0]
    timeout = settings.http_timeout_sec
    writer = make_engine(settings.database_url, autocommit=True)
    return PoolContext(
        settings=settings,
        sessions=make_sessions(make_engine(settings.database_url)),
        writer=writer,
        readers=make_sessions(writer),
        ledger=LedgerClient(settings.ledger_url, key, timeout),
        rewards=RewardsClient(settings.rewards_url, key, timeout),
        protocols=ProtocolsClient(settings.protocols_url, key, timeout),
        relayer=RelayerClient(settings.relayer_url, settings.relayer_api_key, timeout),
        publish=publish,
        look=Look(),
    )
