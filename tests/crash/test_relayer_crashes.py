"""The relayer's worker killed at named points: after a restart the payload is on chain exactly once."""

import re
from collections.abc import Callable

import pytest

from tests.support.anvil import start_anvil
from tests.support.relayer import CUSTODY, OPERATOR, ROOT, Node, make_house, run_pump_process

POINTS = ("relayer.assigned", "relayer.sending", "relayer.delivered", "relayer.settled")


def test_points__in_the_code__are_all_killed_at() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "relayer").glob("*.py"))
    assert sorted(re.findall(r'crashpoint\("([^"]+)"\)', sources)) == sorted(POINTS)


@pytest.mark.parametrize("point", POINTS)
def test_pump__killed__executed_exactly_once_after_restart(make_database: Callable[[str], str], point: str) -> None:
    database_url = make_database("relayer")
    with start_anvil() as anvil:
        node = Node(anvil.url)
        node.mine_by_hand()
        house = make_house(database_url, node)
        before = node.balance(CUSTODY)
        house.post("m:1")
        killed = False
        for _ in range(4):
            finished = run_pump_process(database_url, node.url, point)
            killed = killed or finished.returncode == -9
            assert finished.returncode in {0, -9}, finished.stderr
            node.mine()
            if killed:
                break
        assert killed
        found = house.run("m:1")
        assert (found["status"], found["nonce"], len(found["attempts"])) == ("confirmed", 0, 1)
        assert len(node.transactions_from(OPERATOR)) == 1
        assert node.balance(CUSTODY) - before == int(found["value_wei"])
