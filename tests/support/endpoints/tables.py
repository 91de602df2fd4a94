"""The tables by service."""

from collections.abc import Mapping

from tests.support.endpoints.call import Table, reads
from tests.support.endpoints.ledger import LEDGER
from tests.support.endpoints.payouts import ARRIVALS, PAYOUTS
from tests.support.endpoints.pool import POOL
from tests.support.endpoints.protocols import PROTOCOLS
from tests.support.endpoints.relayer import RELAYER
from tests.support.endpoints.rewards import REWARDS

# What every service has; the last, so that there is something in it.
_COMMON: Table = {"list_audit_log": reads(limit="2")}
TABLES: Mapping[str, Table] = {
    "ledger": {**LEDGER, **_COMMON},
    "rewards": {**REWARDS, **_COMMON},
    "protocols": {**ARRIVALS, **PROTOCOLS, **_COMMON},
    "relayer": {**RELAYER, **_COMMON},
    "pool": {**POOL, **PAYOUTS, **_COMMON},
}
