"""The pool's lane: whoever waited for the walk is told when the walk has done."""

from dataclasses import replace

from apps.common.wei import ETHER
from apps.pool.walk.run import walk_pool
from tests.support.flows import Flows
from tests.support.protocols import POOL


def test_walk__an_unstake_batch_waits_for_its_lane__is_hinted_at_when_it_ends(flows: Flows) -> None:
    flows.stake("ann", 2 * ETHER)
    flows.ask("unstake", "ann", ETHER)
    hints: list[tuple[str, str | None]] = []
    context = replace(flows.context, publish=lambda task, row_id: hints.append((task, row_id)))
    walk_pool(context, POOL)
    assert hints == [], "no batch waits"
    assert flows.batching() == 1
    walk_pool(context, POOL)
    assert [task for task, row_id in hints if row_id is not None] == ["tasks.batches.advance"]
