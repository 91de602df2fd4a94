"""Each call of a life fails once, in each way in which calls fail; each task is delivered twice: each effect once, no wei off,
and no hint is sent before what it points at is committed."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from apps.clients.base import CallFailed
from apps.common.wei import ETHER
from apps.pool.flows import batches, batching, requests, withdrawal_claim
from tests.support.cutting import cutting, post, run_task
from tests.support.flows import Flows
from tests.support.gate import Gate, gated
from tests.support.ratchet import BATCHES, BATCHING, CLAIMS, PUMP, REQUESTS, TURN, WALK, Ratchet, Watch, watching

# A caller gives up after so long where its call is to come too late: real time, as nothing else ends a call.
TIMEOUT_SEC = 0.75


def wheels(flows: Flows) -> dict[str, Callable[[], object]]:
    """What each task does, in this process."""
    context = flows.context
    return {
        REQUESTS: lambda: requests.advance(context),
        BATCHING: lambda: batching.open_due_batches(context),
        BATCHES: lambda: batches.advance(context),
        CLAIMS: lambda: withdrawal_claim.poll_open(context),
        PUMP: flows.pump,
        WALK: flows.walking,
    }


@dataclass
class Failing:
    """Does things with their next call failing in one way."""

    watch: Watch
    gate: Gate
    kind: str
    ratchet: Ratchet = field(init=False)

    def __post_init__(self) -> None:
        self.ratchet = Ratchet(self.watch.state)

    def once(self, work: Callable[[], object], known: frozenset[str]) -> str | None:
        """Do it with a call failing that is not known yet; returns that one."""
        self.watch.time_passes()
        before = len(self.gate.struck)
        with self.gate.failing(self.kind, known), suppress(CallFailed):
            work()
        return self.gate.struck[-1] if len(self.gate.struck) > before else None

    def task(self, name: str) -> None:
        self.work(name, wheels(self.watch.flows)[name])

    def work(self, name: str, work: Callable[[], object]) -> None:
        """Do the same work again and again, until each call of it has failed once."""
        self.ratchet.work(name, partial(self.once, work))


Act = Callable[[str, Callable[[], object]], object]


def stake(watch: Watch, act: Act, run: Callable[[str], object]) -> None:
    """Stakes, one of which is cancelled: `act` does by its name what a user asks for, `run` a task."""
    flows = watch.flows
    flows.deposit("ann", 40 * ETHER)
    flows.deposit("bob", 20 * ETHER)
    for user in ("ann", "bob"):
        act("stake", partial(flows.ask, "stake", user, ETHER))
    cancel(watch, act, run, "stake")
    watch.settle(run)


def live(watch: Watch, act: Act, run: Callable[[str], object]) -> None:
    """Stakes, rewards, their claims, unstakes, one of which is cancelled, and withdrawals."""
    flows = watch.flows
    stake(watch, act, run)
    flows.desk.oracle.rebase(30 * ETHER)
    watch.settle(run)
    act("claim", partial(flows.ask, "reward_claim", "bob"))
    for _ in range(2):
        act("unstake", partial(flows.ask, "unstake", "bob", ETHER // 100))
    cancel(watch, act, run, "unstake")
    watch.settle(run)
    flows.desk.oracle.finalize()
    run(CLAIMS)
    watch.settle(run)


def cancel(watch: Watch, act: Act, run: Callable[[str], object], kind: str) -> None:
    """Once all are queued, take the oldest back."""
    while watch.due(REQUESTS):
        run(REQUESTS)
    ((found,),) = watch.ask("SELECT id FROM requests WHERE kind = %s AND status = 'queued' ORDER BY id LIMIT 1", kind)
    act("cancel", partial(watch.flows.service.cancel, found))


def assert_all_ended(watch: Watch, *, cancelled: int) -> None:
    ((made,),) = watch.ask("SELECT count(*) FROM requests")
    watch.assert_right(completed=made - cancelled, cancelled=cancelled)


@dataclass
class Disturbed:
    """A house whose calls fail one after the other, and what it hinted at. Those in `early` pointed at nothing that others
    can see: no such batch, or no request in the queue that was not there at the last hint."""

    failing: Failing
    hints: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)

    def publish(self, task: str, row_id: str | None) -> None:
        self.hints.append(task)
        ask = self.failing.watch.ask
        if task == BATCHES and not ask("SELECT 1 FROM batches WHERE id = %s", row_id):
            self.early.append(f"{task} {row_id}")
        if task == BATCHING:
            queued = {request_id for (request_id,) in ask("SELECT id FROM requests WHERE status = 'queued'")}
            if queued <= self.queued:
                self.early.append(task)
            self.queued |= queued

    def assert_right(self, *, cancelled: int) -> None:
        assert self.early == []
        assert {BATCHING, BATCHES} <= set(self.hints)
        assert_all_ended(self.failing.watch, cancelled=cancelled)


@contextmanager
def disturbed(flows: Flows, kind: str, timeout_sec: float = 30.0) -> Iterator[Disturbed]:
    with watching(flows) as watch:
        failing = Failing(watch, Gate(), kind)
        found = Disturbed(failing)
        with gated(flows, timeout_sec, found.publish) as (house, gate):
            failing.gate, watch.flows = gate, house
            yield found


def test_stake__each_call_is_done_and_its_answer_lost_in_its_turn__each_effect_once(flows: Flows) -> None:
    with disturbed(flows, "lost") as found:
        stake(found.failing.watch, found.failing.work, found.failing.task)
        assert len(found.failing.gate.struck) >= 30
        found.assert_right(cancelled=1)


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["error", "lost", "cut", "late", "silent"])
def test_life__each_call_fails_in_its_turn__each_effect_once(flows: Flows, kind: str) -> None:
    with disturbed(flows, kind, TIMEOUT_SEC if kind in {"late", "silent"} else 30.0) as found:
        live(found.failing.watch, found.failing.work, found.failing.task)
        struck = found.failing.gate.struck
        assert len(struck) >= 100
        assert {told.split()[0] for told in struck} == {"ledger", "rewards", "protocols", "relayer"}
        found.assert_right(cancelled=2)


@pytest.mark.prove
def test_life__each_task_delivered_twice_at_once__each_effect_once(flows: Flows, tmp_path: Path) -> None:
    delivered: Counter[str] = Counter()
    with cutting(flows, tmp_path) as house:

        def run(task: str) -> None:
            delivered[task] += 1
            house.run(partial(run_task, task), times=2)

        flows.deposit("ann", ETHER)
        body = {"message_id": "cut", "user_id": "ann", "amount_wei": str(ETHER)}
        house.run(partial(post, "/v1/stakes", body), "call.sending")  # its first step is a worker's
        live(house.watch, lambda _, call: call(), run)
        assert delivered.keys() == {*TURN, CLAIMS}
        assert_all_ended(house.watch, cancelled=2)
