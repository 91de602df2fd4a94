"""Do one thing that the services need: ``python -m apps.local.prepare WHAT``, run once by the supervisor at each start.

`staking up` imports neither alembic nor web3, which takes longer than what they do here: the supervisor has them already.
"""

import json
import sys
from collections.abc import Callable

from apps.clients.ledger import LedgerClient
from apps.common.wei import ETHER
from apps.local import postgres
from apps.local.errors import LocalError
from apps.local.home import Home
from apps.local.probes import ask
from apps.local.programs import CONTRACTS, GAS_FLOAT, Programs, migration_of
from migrations import runner

GAS_FLOAT_WEI = 10 * ETHER


def main(what: str) -> int:
    """Do it; 0 when it is done. What somebody can mend is left for `staking up` to say; the rest is in the log."""
    home = Home.from_environment()
    steps: dict[str, Callable[[Home], None]] = {
        CONTRACTS: _deploy,
        GAS_FLOAT: _post_gas_float,
        **{migration_of(name): _migrate(name) for name in postgres.DATABASES},
    }
    try:
        steps[what](home)
    except LocalError as error:
        home.said_by(what).write_text(json.dumps([error.message, error.remedy]))
        return 1
    return 0


def _migrate(name: str) -> Callable[[Home], None]:
    def migrate(home: Home) -> None:
        programs = Programs(home, home.load())
        postgres.create_database(programs.server_url, name)
        runner.upgrade(name, programs.database_url(name))

    return migrate


def _deploy(home: Home) -> None:
    """Remember contracts in the home: those that are on the chain already, or new ones."""
    state = home.load()
    rpc_url = Programs(home, state).rpc_url
    if state.deployment is not None and ask(rpc_url, "eth_getCode", state.deployment["steth"], "latest") != "0x":
        return
    from apps.local import chain  # here, as it imports web3, and most starts find the contracts there

    state.deployment, state.gas_float_wei = chain.deploy_or_adopt(rpc_url, state, GAS_FLOAT_WEI)
    home.save(state)


def _post_gas_float(home: Home) -> None:
    """Book the gas money that was given to the signers at deployment, once."""
    state = home.load()
    if not state.gas_float_wei:
        return
    ledger = LedgerClient(Programs(home, state).service_url("ledger"), state.internal_api_key)
    for address in state.signers():
        name = f"gas-float:genesis:{address}"
        ledger.post_movement(name, "gas_float", state.pool_id, None, state.gas_float_wei, "genesis")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
