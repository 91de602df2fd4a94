"""A block below the horizon leaves the chain after its items were booked: all posting halts, and there is a way out."""

from typing import Any

import pytest

from apps.clients.base import CallRefused
from apps.clients.shapes.common import PoolQuery
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.protocols.history import SEEN_BEFORE_BELIEVED
from tests.integration.world.test_world_ways_out import goes_on, say
from tests.support.flows import Flows
from tests.support.protocols import POOL

HERE = PoolQuery(pool_id=POOL)


def booked_and_reorganized(flows: Flows, *, later: int) -> tuple[dict[str, Any], int]:
    """Stake and book it, then let the chain replace those blocks: the submit is mined again `later` blocks further on."""
    desk = flows.desk
    flows.stake("old", 5 * ETHER)
    snapshot, fork = desk.rpc("evm_snapshot"), desk.head()
    asked = flows.stake("ann", 10 * ETHER)
    (sent,) = [item for item in asked["transactions"] if item["purpose"] == "submit"]
    raw = desk.rpc("eth_getRawTransactionByHash", sent["tx_hash"])
    walked = flows.reads.walk(HERE).block_number
    desk.rpc("evm_revert", snapshot)
    desk.rpc("evm_increaseTime", 60)  # mined within the same second, they would be the same blocks
    desk.oracle.fund(desk.operator, 10 * ETHER)  # the deposit, mined again too
    for _ in range(later):
        desk.oracle.mine()
    desk.rpc("eth_sendRawTransaction", raw)
    while desk.head() <= walked:
        desk.oracle.mine()
    return asked, fork


def halted(flows: Flows) -> dict[str, Any]:
    """Seen at one block it is a doubt, at several it is believed, and the walk halts on it."""
    for _ in range(2 * SEEN_BEFORE_BELIEVED):
        flows.desk.oracle.mine()
        flows.walking()
        halt: dict[str, Any] | None = dump(flows.reads.walk(HERE))["halt"]
        if halt is not None:
            return halt
    raise AssertionError(flows.reads.walk(HERE))


def rescan(flows: Flows, fork: int) -> dict[str, Any]:
    said = {"message_id": "ops:rescan", "from_block": fork + 1, "reason": "reorganized", "requested_by": "olga"}
    return flows.context.protocols.post("/v1/lido/rescan", said)


@pytest.mark.parametrize("later", [0, 6], ids=["at its height", "later than the walk has come"])
def test_reorganized__what_was_booked_is_mined_again__the_walk_is_put_on_the_new_blocks(
    flows: Flows, later: int
) -> None:
    asked, fork = booked_and_reorganized(flows, later=later)
    halt = halted(flows)
    assert (halt["code"], [way["action"] for way in halt["ways_out"]]) == ("chain_reorganized", ["repin_block"])
    rescan(flows, fork)
    say(flows, "repin_block", halt, block_number=flows.desk.head() if later else None)
    goes_on(flows)
    assert flows.balance("ann")["staked_wei"] == str(10 * ETHER)  # once
    flows.desk.oracle.rebase(20 * ETHER)
    flows.stake("bob", ETHER)
    assert flows.request(asked)["status"] == "completed"
    assert set(flows.drifts()) <= {"unidentified"}  # in the other block gas had another price than was booked


def test_reorganized__what_was_booked_is_gone__is_not_put_anywhere(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("old", 5 * ETHER)
    snapshot, fork = desk.rpc("evm_snapshot"), desk.head()
    flows.by_hand(desk.lido.transfer(desk.operator, 0))
    desk.submit(desk.user, 9 * ETHER)
    desk.do(desk.lido.transfer(desk.operator, 3 * ETHER), desk.user)
    flows.stake("ann", ETHER)
    desk.rpc("evm_revert", snapshot)
    while desk.head() <= flows.reads.walk(HERE).block_number:
        desk.oracle.mine()
    halt = halted(flows)
    rescan(flows, fork)
    say(flows, "repin_block", halt)
    flows.walking()
    walk = dump(flows.reads.walk(HERE))
    assert (walk["status"], walk["halt"]["code"]) == ("halted", "chain_reorganized")
    assert "shares" in walk["halt"]["detail"]
    with pytest.raises(CallRefused):
        flows.context.protocols.post(
            "/v1/lido/rescan", {"message_id": "x", "from_block": 10**6, "reason": "?", "requested_by": "o"}
        )
