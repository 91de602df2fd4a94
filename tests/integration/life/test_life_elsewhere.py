"""The whole stack against a second deployment at other addresses, told by settings alone."""

import pytest

from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.devnet.deployment import deploy
from apps.devnet.oracle import Oracle
from apps.local.bff import Bff
from tests.support.anvil import start_anvil
from tests.support.stack import running_stack


@pytest.mark.prove
def test_life__second_deployment_by_settings_alone__stakes_earns_leaves_and_agrees_to_the_wei() -> None:
    with start_anvil("--block-time", "1") as anvil:
        first, second = deploy(anvil.url), deploy(anvil.url)
        settings = {
            "ETH_RPC_URL": anvil.url,
            "LIDO_STETH_ADDRESS": second.steth,
            "LIDO_WITHDRAWAL_QUEUE_ADDRESS": second.withdrawal_queue,
        }
        with running_stack(settings) as stack:
            bff = Bff(stack)
            bff.oracle = Oracle(anvil.url, second)
            assert stack.status()["addresses"]["steth"] == second.steth
            bff.oracle.fund(bff.operator, ETHER)
            bff.clients.ledger.post_movement("gas", "gas_float", bff.pool_id, None, ETHER)
            bff.deposit("ann", 30 * ETHER, "deposit:ann")
            bff.finish([bff.clients.pool.stake("stake:ann", "ann", 20 * ETHER)])
            bff.rebase(100 * ETHER)
            pending = int(bff.portfolio("ann")["position"]["pending_wei"])
            made = bff.clients.pool.unstake("unstake:ann", "ann", "max")
            bff.finish([made], "waiting")
            bff.oracle.finalize()
            (done,) = bff.finish([made])
            assert 20 * ETHER + pending - 2 <= int(done["settled_wei"]) <= 20 * ETHER + pending
            run = dump(bff.reconcile())
            assert (run["verdict"], {line["drift_wei"] for line in run["lines"]}) == ("ok", {"0"})
            untouched = Oracle(anvil.url, first).lido.functions.sharesOf(bff.operator).call()
            assert untouched == 0
