"""A frozen worker, a killed Postgres, a flushed broker: every payload once, and nothing is held up for good."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import requests

from apps.local import postgres as local
from apps.local.postgres import Postgres, unprivileged_account
from migrations import runner
from relayer.store.states import FINAL
from tests.support.anvil import start_anvil
from tests.support.chaos import SEND, chaos_proxy
from tests.support.ports import free_port
from tests.support.postgres import Server
from tests.support.relayer import OPERATOR, House, Node, make_house
from tests.support.relayer_stack import relayer_stack
from tests.support.scratch import scratch
from tests.support.workers import Worker, pump_forever, worker_environment

LIMIT = 2_400  # looks, some 50 ms apart

pytestmark = pytest.mark.prove


def until_final(house: House, worker: Worker, names: list[str]) -> None:
    for _ in range(LIMIT):
        if all(house.message(name)["status"] in FINAL for name in names):
            return
        assert not worker.dead(0.05)
        house.node.mine()
    raise AssertionError([house.message(name) for name in names])


def test_worker__frozen_while_sending__another_takes_over_and_its_late_send_is_harmless(
    make_database: Callable[[str], str],
) -> None:
    """SIGSTOP past every timeout: the lock it holds runs out, and what it does on waking is the same bytes again."""
    database_url = make_database("relayer")
    with start_anvil() as anvil, chaos_proxy(anvil.url) as chaos:
        node = Node(anvil.url)
        node.mine_by_hand()
        house = make_house(database_url, node)
        house.post("m:1", value_wei="11")
        asked = threading.Event()
        chaos.before = lambda method: asked.set() if method == SEND else None
        chaos.fault("hang", SEND)
        frozen = Worker(pump_forever, worker_environment(database_url, (chaos.url,)))
        assert asked.wait(60)
        frozen.signal(signal.SIGSTOP)
        other = Worker(pump_forever, worker_environment(database_url, (anvil.url,)))
        try:
            until_final(house, other, ["m:1"])
            house.post("m:2", value_wei="22")
            chaos.calm()
            frozen.signal(signal.SIGCONT)
            until_final(house, other, ["m:2"])
            for _ in range(20):
                assert not frozen.dead(0.05), "a worker that was frozen goes on"
        finally:
            frozen.kill()
            other.kill()
        assert node.executions() == {11: 1, 22: 1}
        assert [house.message(name)["status"] for name in ("m:1", "m:2")] == ["confirmed", "confirmed"]


class KillableServer:
    """A PostgreSQL that is killed with SIGKILL and started again on the same data, on one port."""

    def __init__(self, directory: Path) -> None:
        self.postgres = Postgres(directory / "postgres", free_port(), "test")
        self.postgres.prepare()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        account = unprivileged_account()
        self.process = subprocess.Popen(
            self.postgres.command(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
        )
        deadline = time.monotonic() + 120
        while not local.answers(self.postgres.url("postgres")):
            assert time.monotonic() < deadline, "PostgreSQL did not answer within 120 s"
            time.sleep(0.05)
            if self.process.poll() is not None:  # what its last life left behind may not be gone yet
                self.start()
                return

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)


@contextmanager
def killable_server() -> Iterator[KillableServer]:
    with scratch() as directory:
        server = KillableServer(directory)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def test_postgres__killed_again_and_again__every_payload_once() -> None:
    with killable_server() as server, start_anvil() as anvil:
        node = Node(anvil.url)
        node.mine_by_hand()
        maker = Server(server.postgres)
        database_url = maker.create("relayer")
        maker.close()
        runner.upgrade("relayer", database_url)
        house = make_house(database_url, node)
        names = [f"m:{number}" for number in range(20)]
        posted: list[str] = []
        environment = worker_environment(database_url, (anvil.url,))
        worker = Worker(pump_forever, environment)
        try:
            for number, name in enumerate(names):
                for _ in range(LIMIT):
                    try:
                        answer = house.post(name, value_wei=str(number + 1))
                        if answer.status_code in {200, 202}:
                            break
                    except Exception:  # noqa: BLE001  # whatever it was: the same post again
                        time.sleep(0.05)
                posted.append(name)
                node.mine()
                if number % 5 == 4:
                    server.kill()
                    server.start()
                if worker.dead(0.1):  # an unhandled fault ends this loop; Celery's would go on to the next hint
                    worker = Worker(pump_forever, environment)
            for _ in range(LIMIT):
                if worker.dead(0.05):
                    worker = Worker(pump_forever, environment)
                node.mine()
                if all(house.message(name)["status"] in FINAL for name in names):
                    break
        finally:
            worker.kill()
        assert node.executions() == {number + 1: 1 for number in range(20)}
        assert {house.message(name)["status"] for name in names} == {"confirmed"}


def test_broker__flushed_and_worker_killed__goes_on_with_the_next_hint(make_database: Callable[[str], str]) -> None:
    """The real web server, broker and Celery worker: all messages in the broker are lost, and nothing else."""
    database_url = make_database("relayer")
    with start_anvil("--block-time", "1") as anvil:
        node = Node(anvil.url)
        with relayer_stack(database_url, (anvil.url,)) as stack:
            body = {
                "to": OPERATOR,
                "data": "0x",
                "gas_limit": 21_000,
                "from": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            }
            broker = redis.Redis(port=stack.broker_port)
            node.rpc(
                "evm_setIntervalMining", 0
            )  # nothing ends, so no hint that it did is flushed, before the last post
            for number in range(5):
                answer = requests.post(
                    f"{stack.url}/v1/transactions",
                    json={**body, "message_id": f"m:{number}", "value_wei": str(number + 1)},
                    timeout=30,
                )
                assert answer.status_code == 202
                broker.flushall()
            node.rpc("evm_setIntervalMining", 1)
            deadline = time.monotonic() + 120
            while requests.get(f"{stack.url}/v1/transactions?status=queued,signed,broadcast,mined", timeout=30).json()[
                "items"
            ]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            done = requests.get(f"{stack.url}/v1/transactions?status=confirmed", timeout=30).json()["items"]
            assert len(done) == 5
            # The flows that wait are woken, right after the commit that the caller above has seen.
            while str(broker.lrange("pool", 0, -1)).count("tasks.batches.transaction_ended") < 5:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        sent = node.transactions_from("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
        assert sorted(int(item["value"], 16) for item in sent) == [1, 2, 3, 4, 5]
