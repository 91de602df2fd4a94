"""Whatever callers, nodes, blocks, crashes and strangers do, in whatever order: what is told is what the chain holds."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from relayer.store.states import FINAL, NEXT, TransactionStatus
from tests.support import naive
from tests.support.anvil import start_anvil
from tests.support.chaos import RECEIPT, SEND, Chaos, chaos_proxy
from tests.support.postgres import Server
from tests.support.relayer import CUSTODY, OPERATOR, House, Node, make_house
from tests.support.workers import Worker, pump_once, worker_environment

CONFIRMATIONS = 3
CRASH_POINTS = (
    "relayer.assigning", "relayer.assigned", "relayer.sending", "relayer.delivered", "relayer.sent", "relayer.moving",
    "relayer.replacing", "relayer.replaced", "relayer.settling", "relayer.settled",
)  # fmt: skip
FAULTS = st.sampled_from(
    [
        ("lose", SEND, ""), ("refuse", SEND, ""), ("gateway", SEND, ""), ("duplicate", SEND, ""), ("wrong_hash", SEND, ""),
        ("error", SEND, "nonce too low"), ("error", SEND, "replacement transaction underpriced"),
        ("error", SEND, "insufficient funds for gas * price + value"), ("error", SEND, "invalid sender"),
        ("null", RECEIPT, ""), ("stale", RECEIPT, ""), ("stale", "eth_getTransactionCount", ""),
        ("refuse", "eth_getBlockByNumber", ""),
    ]
)  # fmt: skip


class RelayerMachine(RuleBasedStateMachine):
    """`make` is put here by the test: it gives a fresh database, node and proxy."""

    make: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.database_url, self.node, self.chaos = self.make()
        self.house: House = make_house(
            self.database_url, self.node, rpc_urls=(self.chaos.url,), confirmations=CONFIRMATIONS
        )
        self.values: dict[str, int] = {}
        self.attempts: dict[str, list[str]] = {}
        self.nonces: dict[str, int] = {}
        self.told: dict[str, dict[str, Any]] = {}
        self.statuses: dict[str, TransactionStatus] = {}
        self.horizon = 0
        self.stranger_came = False

    @rule()
    def submit(self) -> None:
        message_id = f"m:{len(self.values)}"
        self.values[message_id] = len(self.values) + 1
        assert self.house.post(message_id, value_wei=str(self.values[message_id])).status_code == 202

    @precondition(lambda self: self.values)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.values)))
        assert self.house.post(message_id, value_wei=str(self.values[message_id])).status_code == 200

    @rule()
    def tick(self) -> None:
        self._looked()
        self.house.pump()

    @precondition(lambda self: self.values)
    @rule(point=st.sampled_from(CRASH_POINTS))
    def crash(self, point: str) -> None:
        """A process of its own does one tick, and dies at `point` if it comes there."""
        self._looked()
        environment = worker_environment(self.database_url, (self.chaos.url,), CONFIRMATIONS=str(CONFIRMATIONS))
        worker = Worker(pump_once, {**environment, "STAKING_CRASHPOINT": point})
        assert worker.dead(60)

    @rule(blocks=st.integers(1, 3))
    def mine(self, blocks: int) -> None:
        self.node.mine(blocks)

    @rule(depth=st.integers(1, CONFIRMATIONS - 1))
    def reorg(self, depth: int) -> None:
        """Never as deep as what a look held for irreversible: that is the one assumption."""
        if self.node.head() - depth >= max(1, self.horizon):
            self.node.rpc("anvil_rollback", depth)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        hashes = self.attempts[data.draw(st.sampled_from(sorted(self.attempts)))]
        self.node.rpc("anvil_dropTransaction", data.draw(st.sampled_from(hashes)))

    @rule(gwei=st.sampled_from([1, 50, 500]))
    def fee_spike(self, gwei: int) -> None:
        self.node.base_fee(gwei * 10**9)

    @precondition(lambda self: self.values)
    @rule(data=st.data(), wish=st.sampled_from(["cancel", "speed-up"]))
    def ask(self, data: st.DataObject, wish: str) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.values)))
        self.house.client.post(f"/v1/transactions/{message_id}/{wish}")

    @rule(fault=FAULTS)
    def fault(self, fault: tuple[str, str, str]) -> None:
        kind, method, text = fault
        self.chaos.fault(kind, method, text=text)

    @precondition(lambda self: self.values and not self.stranger_came)
    @rule()
    def stranger(self) -> None:
        """Somebody who has the key sends something else, at a price that wins."""
        nonce = int(self.node.rpc("eth_getTransactionCount", OPERATOR, "latest"), 16)
        self.node.send_as_stranger(nonce)
        self.stranger_came = True

    @rule()
    def release(self) -> None:
        """Ops lift a quarantine where that is allowed, and go on."""
        if self.house.client.post(f"/v1/signers/{OPERATOR}/release").status_code == 200:
            assert self.house.client.post(f"/v1/signers/{OPERATOR}/resume").get_json()["state"] == "active"

    @invariant()
    def told_is_true(self) -> None:
        executed = self.node.executions()
        for message_id, value in self.values.items():
            found = self.house.message(message_id)
            assert executed[value] <= 1, "a payload was executed twice"
            if found["status"] in FINAL:
                assert executed[value] == (found["status"] == "confirmed"), found
                assert found == self.told.setdefault(message_id, found), "an end was changed"
            status = TransactionStatus(found["status"])
            before = self.statuses.setdefault(message_id, TransactionStatus.QUEUED)
            assert status in reachable(before), f"{before} never leads to {status}"
            self.statuses[message_id] = status
            hashes = [item["tx_hash"] for item in found["attempts"]]
            known = self.attempts.get(message_id, [])
            assert hashes[: len(known)] == known, "an attempt was lost"
            if hashes:
                self.attempts[message_id] = hashes
                assert found["nonce"] == self.nonces.setdefault(message_id, found["nonce"]), "a second nonce"
        assert len(set(self.nonces.values())) == len(self.nonces), "one nonce for two messages"

    def teardown(self) -> None:
        """Once the weather is fair everything ends, but for what a quarantined key cannot sign."""
        self.chaos.calm()
        for _ in range(60):
            self._looked()
            self.house.pump()
            statuses = {self.house.message(message_id)["status"] for message_id in self.values}
            if statuses <= {*FINAL, "queued"} and (self._quarantined() or "queued" not in statuses):
                break
            self.node.mine()
        else:
            raise AssertionError([self.house.message(message_id) for message_id in self.values])
        self.told_is_true()

    def _quarantined(self) -> bool:
        items = self.house.client.get("/v1/signers").get_json()["items"]
        return any(item["address"] == OPERATOR and item["state"] in {"quarantined", "new"} for item in items)

    def _looked(self) -> None:
        self.horizon = max(self.horizon, self.node.head() - CONFIRMATIONS + 1)


def reachable(status: TransactionStatus) -> set[TransactionStatus]:
    """The status itself, and what it may become by any number of allowed steps."""
    found, fresh = {status}, {status}
    while fresh:
        fresh = set().union(*(NEXT[one] for one in fresh)) - found
        found |= fresh
    return found


@pytest.fixture
def machine(make_database: Any, postgres: Server) -> Iterator[type[RelayerMachine]]:
    """One node for all examples, reset before each."""
    with start_anvil() as anvil, chaos_proxy(anvil.url) as chaos:

        def make(_self: RelayerMachine) -> tuple[str, Node, Chaos]:
            node = Node(anvil.url)
            node.rpc("anvil_reset")
            node.mine_by_hand()
            chaos.calm()
            chaos.forget()
            return make_database("relayer"), node, chaos

        yield type("Machine", (RelayerMachine,), {"make": make})


def check(machine: type[RelayerMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_relayer__anything_in_any_order__told_is_true(machine: type[RelayerMachine]) -> None:
    check(machine, examples=5, steps=15)


@pytest.mark.prove
def test_relayer__anything_in_any_order_for_long__told_is_true(machine: type[RelayerMachine]) -> None:
    check(machine, examples=20, steps=25)


def test_control__naive_relayer_and_a_receipt_kept_back__executes_twice(make_database: Any) -> None:
    """ "Nonce used, no receipt" taken for "never executed": the inference that the machine above forbids."""
    database_url = make_database("relayer")
    naive.prepare(database_url, [11])
    with start_anvil() as anvil, chaos_proxy(anvil.url) as chaos:
        node = Node(anvil.url)
        node.mine_by_hand()
        naive.tick(database_url, chaos.url)
        node.mine()
        chaos.fault("null", RECEIPT)
        naive.tick(database_url, chaos.url)
        node.mine()
        assert node.executions()[11] == 2
        assert node.balance(CUSTODY) > 0
