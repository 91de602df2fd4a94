"""Workers frozen past their leases at every boundary of a life, while others do their work: what they find out is discarded."""

from functools import partial
from pathlib import Path

import pytest

from apps.common.wei import ETHER
from tests.support.cutting import cutting, post, run_task
from tests.support.flows import Flows
from tests.support.ratchet import CLAIMS, PUMP


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_life__workers_frozen_at_every_boundary_past_their_leases__what_they_write_late_is_discarded(
    flows: Flows, tmp_path: Path
) -> None:
    flows.stake("ann", 30 * ETHER)
    flows.deposit("bob", 10 * ETHER)
    with cutting(flows, tmp_path) as house:

        def run(task: str) -> None:
            if task == PUMP or house.only_closes_blocks(task):
                house.plainly(task)
            else:
                house.freeze(task, partial(run_task, task))

        for number, (path, body) in enumerate((
            ("/v1/stakes", {"user_id": "bob", "amount_wei": str(ETHER)}),
            ("/v1/unstakes", {"user_id": "ann", "amount_wei": str(ETHER)}),
        )):  # fmt: skip
            # Its first step is left to a worker.
            assert house.run(partial(post, path, {"message_id": f"{number}", **body}), "call.sending") is not None
        house.watch.settle(run)
        flows.desk.oracle.rebase(30 * ETHER)
        flows.desk.oracle.finalize()
        claim = partial(post, "/v1/reward-claims", {"message_id": "2", "user_id": "bob"})
        assert house.run(claim, "call.sending") is not None
        house.freeze(CLAIMS, partial(run_task, CLAIMS))
        house.watch.settle(run)
        assert house.cuts.keys() >= {
            "call.sending",
            "call.answered",
            "transaction.committed",
            "flow.leased",
            "flow.stepped",
        }
        lost = house.watch.ask("SELECT DISTINCT subject FROM flow_events WHERE type = 'lease_lost'")
        assert {subject for (subject,) in lost} == {"request", "batch", "walk"}
        # A batch comes to `requesting` by several steps: it leaves the index, is approved, comes off by a wei.
        twice = """SELECT subject, subject_id, status FROM flow_events WHERE type IN ('checkpoint', 'completed')
            AND subject <> 'walk' AND status <> 'requesting' GROUP BY 1, 2, 3 HAVING count(*) > 1"""
        assert house.watch.ask(twice) == [], "no outcome is written a second time"
        house.watch.assert_right(completed=4)
