"""Workers frozen past their leases at every boundary of a life, while others do their work: what they find out is discarded."""

from functools import partial
from pathlib import Path

import pytest

from apps.common.wei import ETHER
from tests.support.cutting import Cutting, cutting, post, run_task
from tests.support.flows import Flows
from tests.support.ratchet import CLAIMS, PUMP

# Around what a step does elsewhere, and around the writing of its outcome.
BOUNDARIES = frozenset({"flow.leased", "call.sending", "call.answered", "flow.stepped"})
# Where another one took the row over meanwhile: in each step there is.
LOST = [
    ("batch", "batched"), ("batch", "claiming"), ("batch", "confirming"), ("batch", "requesting"), ("batch", "submitting"),
    ("request", "reserving"), ("request", "settling"), ("walk", "walking"),
]  # fmt: skip
MOST_LIVES = 40


def live(house: Cutting, number: int) -> None:
    """A stake, a reward claim, an unstake and its withdrawal: the work of each task is frozen once in each state, as the other
    worker has done it by then."""

    def run(task: str) -> None:
        if task == PUMP or house.only_closes_blocks(task):
            house.plainly(task)
        else:
            house.freeze(task, partial(run_task, task), BOUNDARIES)

    def ask(path: str, user: str, **body: str) -> None:
        """Its first step is left to a worker."""
        given = {"message_id": f"{path.rsplit('/', 1)[1]}:{number}", "user_id": user, **body}
        assert house.run(partial(post, path, given), "call.sending") is not None

    ask("/v1/stakes", "bob", amount_wei=str(ETHER))
    ask("/v1/unstakes", "ann", amount_wei=str(ETHER))
    house.watch.settle(run)
    house.flows.desk.oracle.rebase(ETHER)
    house.flows.desk.oracle.finalize()
    ask("/v1/reward-claims", "bob")
    run(CLAIMS)
    house.watch.settle(run)


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_life__workers_frozen_at_every_boundary_past_their_leases__what_they_write_late_is_discarded(
    flows: Flows, tmp_path: Path
) -> None:
    flows.stake("ann", 100 * ETHER)
    flows.deposit("bob", 100 * ETHER)
    with cutting(flows, tmp_path) as house:
        lives, before = 0, -1
        while house.frozen.total() > before:
            assert lives < MOST_LIVES
            before = house.frozen.total()
            live(house, lives)
            lives += 1
        assert house.frozen.keys() == BOUNDARIES
        lost = house.watch.ask(
            "SELECT DISTINCT subject, status FROM flow_events WHERE type = 'lease_lost' ORDER BY 1, 2"
        )
        assert lost == LOST, "what is written late is discarded"
        assert house.watch.ask("SELECT * FROM flow_events WHERE type = 'failed_attempt'") == [], "nor is it a fault"
        # A batch comes to `requesting` by several steps: it leaves the index, is approved, comes off by a wei.
        twice = """SELECT subject, subject_id, status FROM flow_events WHERE type IN ('checkpoint', 'completed')
            AND subject <> 'walk' AND status <> 'requesting' GROUP BY 1, 2, 3 HAVING count(*) > 1"""
        assert house.watch.ask(twice) == [], "no outcome is written a second time"
        house.watch.assert_right(completed=3 * lives + 1)
