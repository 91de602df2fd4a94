"""The pool's lane: whoever waited for the walk is told when the walk has done."""

from dataclasses import replace
from typing import Any

from apps.common.wei import ETHER
from apps.pool.walk.lane import walk_lane
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


class AskedMeanwhile:
    """A service that asks for another walk whenever the walk reads the history."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self.ask: Any = None

    def history(self, *words: Any) -> Any:
        page = self._service.history(*words)
        assert self.ask() == 0, "the lane is taken"
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)


def test_walk__asked_for_after_another_one_has_read_the_history__is_hinted_at_when_that_ends(flows: Flows) -> None:
    walk_pool(flows.context, POOL)
    hints: list[tuple[str, str | None]] = []
    service: Any = AskedMeanwhile(flows.context.protocols)
    context = replace(flows.context, protocols=service, publish=lambda task, row_id: hints.append((task, row_id)))
    service.ask = lambda: walk_pool(flows.context, POOL)
    walk_pool(context, POOL)
    assert hints == [("tasks.walk.run_pool", POOL)]
    hints.clear()
    service.ask = lambda: 0
    walk_pool(context, POOL)
    assert hints == [], "nobody has asked since"


def test_walk__asked_for_while_the_lane_holds_no_walk__is_hinted_at_when_the_lane_is_free(flows: Flows) -> None:
    hints: list[tuple[str, str | None]] = []
    context = replace(flows.context, publish=lambda task, row_id: hints.append((task, row_id)))
    walk_pool(context, POOL)
    with walk_lane(context, POOL):
        assert walk_pool(context, POOL) == 0
        assert hints == []
    assert hints == [("tasks.walk.run_pool", POOL)]
