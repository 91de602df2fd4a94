"""Each call of a life fails once, in each way in which calls fail; each task is delivered twice: each effect once, no wei off."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from apps.clients.base import CallFailed
from apps.common.wei import ETHER
from apps.pool.flows import batches, batching, requests, withdrawal_claim
from tests.support.cutting import cutting, post, run_task
from tests.support.flows import Flows
from tests.support.gate import Gate, gated
from tests.support.ratchet import BATCHES, BATCHING, CLAIMS, PUMP, REQUESTS, TURN, WALK, Watch, ratchet, watching

# A caller gives up after so long where its call is to come too late: real time, as nothing else ends a call.
TIMEOUT_SEC = 1.0


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

    def once(self, work: Callable[[], object], number: int) -> bool:
        """Whether there was such a call."""
        self.watch.time_passes()
        before = len(self.gate.struck)
        with self.gate.failing(self.kind, number), suppress(CallFailed):
            work()
        return len(self.gate.struck) > before

    def work(self, work: Callable[[], object]) -> None:
        """Do the same work again and again, until no call of it is left to fail."""
        ratchet(self.watch.moved, lambda number: self.once(work, number))

    def ask(self, ask: Callable[[], object]) -> None:
        """Ask for another one with each call that can fail; each is finished by a worker."""
        number = 1
        while self.once(ask, number):
            number += 1


Act = Callable[[Callable[[], object]], object]


def stake(watch: Watch, act: Act, run: Callable[[str], object]) -> None:
    """Stakes, one of which is cancelled: `act` does what a user asks for, `run` a task."""
    flows = watch.flows
    flows.deposit("ann", 40 * ETHER)
    flows.deposit("bob", 20 * ETHER)
    for user in ("ann", "bob"):
        act(partial(flows.ask, "stake", user, ETHER))
    cancel(watch, act, run, "stake")
    watch.settle(run)


def live(watch: Watch, act: Act, run: Callable[[str], object]) -> None:
    """Stakes, rewards, their claims, unstakes, one of which is cancelled, and withdrawals."""
    flows = watch.flows
    stake(watch, act, run)
    flows.desk.oracle.rebase(30 * ETHER)
    watch.settle(run)
    act(partial(flows.ask, "reward_claim", "bob"))
    for _ in range(2):
        act(partial(flows.ask, "unstake", "bob", ETHER // 10))
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
    act(partial(watch.flows.service.cancel, found))


def assert_all_ended(watch: Watch, *, cancelled: int) -> None:
    ((made,),) = watch.ask("SELECT count(*) FROM requests")
    watch.assert_right(completed=made - cancelled, cancelled=cancelled)


def test_stake__each_call_is_done_and_its_answer_lost_in_its_turn__each_effect_once(flows: Flows) -> None:
    with gated(flows) as (house, gate), watching(house) as watch:
        turn, failing = wheels(house), Failing(watch, gate, "lost")
        stake(watch, failing.ask, lambda task: failing.work(turn[task]))
        assert len(gate.struck) >= 30
        assert_all_ended(watch, cancelled=1)


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["error", "lost", "cut", "late", "silent"])
def test_life__each_call_fails_in_its_turn__each_effect_once(flows: Flows, kind: str) -> None:
    with gated(flows, TIMEOUT_SEC if kind in {"late", "silent"} else 30.0) as (house, gate), watching(house) as watch:
        turn, failing = wheels(house), Failing(watch, gate, kind)
        live(watch, failing.ask, lambda task: failing.work(turn[task]))
        assert len(gate.struck) >= 150
        assert {told.split()[0] for told in gate.struck} == {"ledger", "rewards", "protocols", "relayer"}
        assert_all_ended(watch, cancelled=2)


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
        live(house.watch, lambda call: call(), run)
        assert delivered.keys() == {*TURN, CLAIMS}
        assert_all_ended(house.watch, cancelled=2)
