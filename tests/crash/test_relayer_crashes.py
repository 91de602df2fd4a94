"""Relayer workers killed at every named point, in fair weather and foul: each payload is on chain exactly once.

What was executed is counted by scanning the blocks, and must be what the relayer reports.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select

from apps.common.database import transaction
from relayer import create_app
from relayer.store.models import Message
from relayer.store.states import FINAL, OPEN, STATUSES
from tests.support import naive
from tests.support.anvil import start_anvil
from tests.support.chaos import RECEIPT, SEND, Chaos, chaos_proxy
from tests.support.relayer import OPERATOR, ROOT, House, Node, make_house
from tests.support.workers import Worker, pump_forever, worker_environment

AFTER_ACCEPTANCE = (
    "relayer.assigning", "relayer.assigned", "relayer.sending", "relayer.delivered", "relayer.sent", "relayer.moving",
    "relayer.moved", "relayer.settling", "relayer.settled", "relayer.hinting",
)  # fmt: skip
REPLACING = ("relayer.replacing", "relayer.replaced")
ACCEPTING = ("relayer.accepting", "relayer.accepted")
LIMIT = 1_500  # looks, some 50 ms apart: far beyond what any run needs
VALUES = {"m:1": 11, "m:2": 22}


@dataclass
class Run:
    """Two messages on their way, a worker that is due to die, and whoever takes its place."""

    house: House
    environment: dict[str, str]
    point: str
    chaos: Chaos
    killed: bool = False
    worker: Worker = field(init=False)

    def start(self) -> None:
        self.worker = Worker(pump_forever, {**self.environment, "STAKING_CRASHPOINT": self.point})

    def until(self, condition: Callable[[], bool], *, mining: bool = False) -> None:
        """Wait, with blocks coming if so told; a worker that has died is replaced by one that does not die."""
        for _ in range(LIMIT):
            if self.worker.dead(0.05):
                assert self.worker.killed_itself(), "the worker ended otherwise than at its point"
                self.killed = True
                self.point = ""
                self.start()
            if condition():
                return
            if mining and self.head_was_seen():
                self.house.node.mine()
        raise AssertionError([self.killed, *(self.house.message(name) for name in VALUES)])

    def head_was_seen(self) -> bool:
        """Blocks come no faster than a worker looks, so that it sees each stage of a message."""
        with transaction(self.house.context.sessions) as session:
            rows = session.scalars(select(Message.observed_head).where(Message.status.in_(OPEN))).all()
        return all(head == self.house.node.head() for head in rows)

    def status(self, name: str) -> str:
        return str(self.house.message(name)["status"])

    def reached(self, status: str) -> bool:
        """Whether all messages have come as far as `status`."""
        return all(STATUSES.index(self.status(name)) >= STATUSES.index(status) for name in VALUES)

    def all_final(self) -> bool:
        return all(self.status(name) in FINAL for name in VALUES)


def clean(run: Run) -> None:
    run.until(run.all_final, mining=True)


def fee_spike(run: Run) -> None:
    run.until(lambda: run.reached("broadcast"))
    run.house.node.base_fee(10**11)
    run.until(run.all_final, mining=True)


def cancel(run: Run) -> None:
    run.until(lambda: run.reached("broadcast"))
    run.house.node.base_fee(10**11)
    assert run.house.client.post("/v1/transactions/m:1/cancel").status_code == 202
    run.until(run.all_final, mining=True)
    assert run.status("m:1") == "cancelled"


def reorg(run: Run) -> None:
    run.until(lambda: run.reached("broadcast"))
    run.house.node.mine()
    run.until(lambda: run.reached("mined"))
    run.house.node.rpc("anvil_rollback", 1)
    run.until(lambda: not run.reached("mined"))
    run.until(run.all_final, mining=True)


def bad_node(run: Run) -> None:
    run.until(run.all_final, mining=True)
    assert run.chaos.used


FAULTS = (
    ("lose", SEND, ""), ("error", SEND, "nonce too low"), ("duplicate", SEND, ""), ("refuse", SEND, ""),
    ("error", SEND, "insufficient funds for gas * price + value"), ("wrong_hash", SEND, ""), ("null", RECEIPT, ""),
    ("gateway", RECEIPT, ""), ("null", RECEIPT, ""), ("stale", "eth_getTransactionCount", ""),
)  # fmt: skip
SCENARIOS: dict[Callable[[Run], None], tuple[str, ...]] = {
    clean: AFTER_ACCEPTANCE,
    fee_spike: (*AFTER_ACCEPTANCE, *REPLACING),
    cancel: (*AFTER_ACCEPTANCE, *REPLACING),
    reorg: AFTER_ACCEPTANCE,
    bad_node: AFTER_ACCEPTANCE,
}
# The windows in which a relayer loses money; `make prove` runs all.
SHORT = {
    (clean, "relayer.assigned"), (clean, "relayer.delivered"), (clean, "relayer.settled"),
    (cancel, "relayer.replacing"), (cancel, "relayer.replaced"),
}  # fmt: skip
MATRIX = [
    pytest.param(
        scenario,
        point,
        id=f"{scenario.__name__}-{point}",
        marks=() if (scenario, point) in SHORT else pytest.mark.prove,
    )
    for scenario, points in SCENARIOS.items()
    for point in points
]


@contextmanager
def a_run(make_database: Callable[[str], str], point: str) -> Iterator[Run]:
    database_url = make_database("relayer")
    with start_anvil() as anvil, chaos_proxy(anvil.url) as chaos:
        node = Node(anvil.url)
        node.mine_by_hand()
        house = make_house(database_url, node)
        run = Run(house, worker_environment(database_url, (chaos.url,)), point, chaos)
        for name, value in VALUES.items():
            house.post(name, value_wei=str(value))
        try:
            yield run
        finally:
            run.worker.kill()


def assert_told_is_done(house: House) -> None:
    """What is reported is what the chain holds: each confirmed payload once, nothing else, no nonce left out."""
    executions = house.node.executions()
    for name, value in VALUES.items():
        assert executions[value] == (1 if house.message(name)["status"] == "confirmed" else 0), house.message(name)
    sent = house.node.transactions_from(OPERATOR)
    assert sorted(int(item["nonce"], 16) for item in sent) == list(range(len(VALUES)))
    hashes = {item["hash"] for item in sent}
    assert hashes == {house.message(name)["tx_hash"] for name in VALUES}


def test_points__in_the_code__are_all_killed_at() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "relayer").rglob("*.py"))
    named = re.findall(r'crashpoint\("([^"]+)"\)', sources)
    assert sorted(named) == sorted({*ACCEPTING, *(point for points in SCENARIOS.values() for point in points)})


@pytest.mark.parametrize(("scenario", "point"), MATRIX)
def test_worker__killed__every_payload_once_and_told_as_it_is(
    make_database: Callable[[str], str], scenario: Callable[[Run], None], point: str
) -> None:
    with a_run(make_database, point) as run:
        if scenario is bad_node:
            for kind, method, text in FAULTS:
                run.chaos.fault(kind, method, text=text)
        run.start()
        scenario(run)
        run.until(lambda: run.killed)  # fails where the point was never reached
        assert_told_is_done(run.house)


def post_in_a_process() -> None:
    body = {"message_id": "m:1", "to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "data": "0x", "value_wei": "11"}
    create_app().test_client().post("/v1/transactions", json=body)


@pytest.mark.parametrize("point", ACCEPTING)
def test_web__killed_while_accepting__same_post_again_is_one_message(
    make_database: Callable[[str], str], point: str
) -> None:
    database_url = make_database("relayer")
    with start_anvil() as anvil:
        node = Node(anvil.url)
        node.mine_by_hand()
        environment = {**worker_environment(database_url, (anvil.url,)), "STAKING_CRASHPOINT": point}
        web = Worker(post_in_a_process, environment)
        assert web.dead(60)
        assert web.killed_itself()
        house = make_house(database_url, node)
        answer = house.post("m:1", value_wei="11", gas_limit=None)
        assert answer.status_code == (202 if point == "relayer.accepting" else 200)
        assert house.run("m:1")["status"] == "confirmed"
        assert node.executions() == {11: 1}


def test_control__naive_relayer_killed_the_same_way__executes_twice(make_database: Callable[[str], str]) -> None:
    """The check above is worth nothing unless it catches a relayer that sends before it stores."""
    database_url = make_database("relayer")
    naive.prepare(database_url, [11])
    with start_anvil() as anvil:
        node = Node(anvil.url)
        node.mine_by_hand()
        environment = {"NAIVE_DATABASE_URL": database_url, "RPC_URL": anvil.url}
        worker = Worker(naive.work_forever, {**environment, "STAKING_CRASHPOINT": naive.CRASH_POINTS[0]})
        assert worker.dead(60)
        assert worker.killed_itself()
        worker = Worker(naive.work_forever, environment)
        for _ in range(LIMIT):
            if naive.all_done(database_url):
                break
            node.mine()
            worker.dead(0.05)
        worker.kill()
        assert node.executions()[11] > 1
