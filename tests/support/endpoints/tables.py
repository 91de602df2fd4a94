"""The tables by service."""

from collections.abc import Mapping

from tests.support.endpoints.call import Table
from tests.support.endpoints.ledger import LEDGER
from tests.support.endpoints.pool import POOL
from tests.support.endpoints.protocols import PROTOCOLS
from tests.support.endpoints.relayer import RELAYER
from tests.support.endpoints.rewards import REWARDS

TABLES: Mapping[str, Table] = {
    "ledger": LEDGER,
    "rewards": REWARDS,
    "protocols": PROTOCOLS,
    "relayer": RELAYER,
    "pool": POOL,
}
