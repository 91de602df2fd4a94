"""Every worker killed with SIGKILL in the middle of a life: it still ends right, to the wei."""

import pytest

from apps.common.shapes import dump
from apps.local.bff import Bff
from apps.local.checks import check_books
from apps.local.life import Life
from tests.support.stack import running_stack


@pytest.mark.prove
def test_life__all_workers_killed_in_the_middle__every_balance_equals_the_chain() -> None:
    with running_stack() as stack:
        bff = Bff(stack)
        killed: list[int] = []

        def kill() -> None:
            before = {name: info["pid"] for name, info in stack.processes().items() if name.endswith("-worker")}
            stack.kill_workers()
            killed.extend(before.values())

        life = Life(bff, disturb=kill)
        for step in life.steps():
            step.run()
        assert len(killed) == 4
        assert [check for check in check_books(bff, life.users()) if not check.ok] == []
        run = dump(bff.reconcile())
        assert (run["verdict"], {line["drift_wei"] for line in run["lines"]}) == ("ok", {"0"})
