"""Custody and operator at two addresses; and what reconciliation says when ETH is taken behind its back."""

from collections.abc import Iterator

import pytest

from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.devnet.deployment import set_balance
from apps.local.bff import Bff
from apps.local.stack import Stack
from tests.support.raw import raw
from tests.support.stack import QUICK, running_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack({**QUICK, "REWARD_FEE_BPS": "1000"}, separate_custody=True) as started:
        yield started


def test_life__custody_apart_and_a_fee__exact_to_the_wei_until_one_ether_is_taken(bff: Bff) -> None:
    assert bff.custody != bff.operator
    bff.deposit("ann", 30 * ETHER, "deposit:ann")
    (staked,) = bff.finish([bff.clients.pool.stake("stake:ann", "ann", 20 * ETHER)])
    assert [sent["purpose"] for sent in staked["transactions"]] == ["fund", "submit"]

    bff.rebase(100 * ETHER)
    pending = int(bff.portfolio("ann")["position"]["pending_wei"])
    totals = raw(bff.clients.ledger).totals(bff.pool_id)
    fees = int(totals["system"]["@fees"])
    # A tenth of the gain is the company's; the last wei of either may lie in a remainder.
    assert abs(9 * fees - pending) <= 9
    assert fees > 0

    made = bff.clients.pool.unstake("unstake:ann", "ann", "max")
    bff.finish([made], "waiting")
    before = bff.eth_of(bff.custody)
    bff.oracle.finalize()
    (done,) = bff.finish([made])
    assert bff.eth_of(bff.custody) - before == int(done["settled_wei"])
    assert 20 * ETHER + pending - 2 <= int(done["settled_wei"]) <= 20 * ETHER + pending

    wallet = "0x00000000000000000000000000000000000A11e7"
    bff.pay_out("ann", wallet, 5 * ETHER, "payout:ann")
    assert bff.eth_of(wallet) == 5 * ETHER

    run = dump(bff.reconcile())
    assert (run["verdict"], [line["drift_wei"] for line in run["lines"]]) == ("ok", ["0"] * len(run["lines"]))

    set_balance(bff.oracle.web3, bff.custody, bff.eth_of(bff.custody) - ETHER)
    run = dump(bff.reconcile())
    off = {line["name"]: line["drift_wei"] for line in run["lines"] if not line["ok"]}
    assert (run["verdict"], off) == ("drift", {"eth": str(-ETHER)})
