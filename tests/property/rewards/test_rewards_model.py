"""One model of the index, and one random history of it run against the arithmetic, the service on Postgres and the API.

R1 conservation, R2 whole wei, R3 dust, R4 settling changes nothing (the model settles everybody always, the service
nobody), R7 nobody loses, R9 weights add up, R15 booked twice is once, R16 the log replays to the tables, R18 the model is
the service, and the crash rule: a database backend ended at a random statement, the call repeated, the books agree.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from apps.clients.rewards import RewardsClient
from apps.rewards import create_app
from tests.support.backends import BackendKiller
from tests.support.protocols import serving
from tests.support.rewards import KEY, make_settings
from tests.support.rewards_drivers import Broken, Driver, HttpDriver, MathDriver, ServiceDriver
from tests.support.rewards_model import Delta, Model, Numbers, P, Refused

USERS = st.sampled_from(["ann", "ben", "Cat", "d|4"])
FEES = (0, 1000, 9999)
SMALL = st.one_of(st.integers(1, 30), st.integers(1, 10**19))
HUGE = st.one_of(SMALL, st.integers(1, 2**250))
PARTS = st.one_of(st.sampled_from([1, 500, 1000, 1001]), st.integers(1, 1100))  # thousandths
NEVER = st.just(0)
SOMETIMES = st.one_of(st.just(0), st.just(0), st.integers(1, 12))

Outcome = tuple[str, Numbers | str]
Step = Callable[[Driver], Numbers]


@dataclass
class Desk:
    """Who takes part, by the fee in basis points, and who can end their database backends."""

    make_drivers: Callable[[int], list[Driver]]
    killers: Sequence[BackendKiller] = ()
    drivers: list[Driver] = field(default_factory=list)


def make_machine(desk: Desk, amounts: st.SearchStrategy[int], kills: st.SearchStrategy[int]) -> type:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()
            self.drivers: list[Driver] = []
            self.done: list[tuple[Step, list[Outcome]]] = []

        @initialize(fee_bps=st.sampled_from(FEES))
        def begin(self, fee_bps: int) -> None:
            self.model = Model(fee_bps)
            self.drivers = desk.make_drivers(fee_bps)

        @rule(reward=amounts, kill=kills)
        def gain(self, reward: int, kill: int) -> None:
            self.step(lambda to, name: to.accrue(name, reward), self.model.accrue, reward, kill=kill)

        @rule(loss=st.integers(1, 30), kill=kills)
        def lose_dust(self, loss: int, kill: int) -> None:
            self.step(lambda to, name: to.accrue(name, -loss), self.model.accrue, -loss, kill=kill)

        @rule(part=PARTS, kill=kills)
        def lose_part(self, part: int, kill: int) -> None:
            loss = self.model.weight * part // 1000
            self.step(lambda to, name: to.accrue(name, -loss), self.model.accrue, -loss, kill=kill)

        @rule(
            deltas=st.lists(st.tuples(USERS, amounts, st.one_of(st.just(0), amounts)), min_size=1, max_size=3),
            kill=kills,
        )
        def stake(self, deltas: list[Delta], kill: int) -> None:
            self.step(lambda to, name: to.stake(name, deltas), self.model.stake, deltas, kill=kill)

        @rule(user=USERS, part=PARTS, staked=st.booleans(), moves=st.booleans(), kill=kills)
        def unstake(self, user: str, part: int, *, staked: bool, moves: bool, kill: int) -> None:
            held = self.model.positions().get(user)
            amount = 1 if held is None else held["staked_wei" if staked else "exiting_wei"] * part // 1000
            back = amount if moves else 0
            deltas = [(user, -amount, back) if staked else (user, back, -amount)]
            self.step(lambda to, name: to.stake(name, deltas), self.model.stake, deltas, kill=kill)

        @rule(user=USERS, more=st.integers(0, 1))
        def unstake_worth(self, user: str, more: int) -> None:
            """All that the position is worth, or one wei more than that."""
            held = self.model.positions().get(user)
            if held is None or held["staked_wei"] + min(held["pending_wei"], 0) + more <= 0:
                return
            deltas = [(user, -(held["staked_wei"] + min(held["pending_wei"], 0) + more), 0)]
            self.step(lambda to, name: to.stake(name, deltas), self.model.stake, deltas)

        @rule(user=USERS, kill=kills)
        def claim(self, user: str, kill: int) -> None:
            self.step(lambda to, name: to.claim(name, user), self.model.claim, user, kill=kill)

        @rule(part=PARTS, kill=kills)
        def release(self, part: int, kill: int) -> None:
            amount = self.model.parked * part // 1000
            if amount != 0:
                self.step(lambda to, name: to.release(name, amount), self.model.release, amount, kill=kill)

        @rule(which=st.integers(0, 99))
        def repeat(self, which: int) -> None:
            """The same message again: the same answer, and nothing changes."""
            if not self.done:
                return
            repeated, answers = self.done[which % len(self.done)]
            for driver, answer in zip(self.drivers, answers, strict=True):
                # A refused batch uses up no id, so that it may be done by now.
                if isinstance(driver, MathDriver) or answer == ("refused", "insufficient_stake"):
                    continue
                wanted = answer
                if isinstance(answer[1], dict) and "applied" in answer[1]:
                    wanted = ("done", {"applied": 0, "replayed": answer[1]["applied"]})
                assert outcome(repeated, driver) == wanted

        @invariant()
        def all_agree(self) -> None:
            pool, positions = self.model.pool(), self.model.positions()
            for driver in self.drivers:
                assert (driver.pool(), driver.positions()) == (pool, positions), type(driver).__name__

        @invariant()
        def every_wei_is_accounted_for(self) -> None:
            model = self.model
            owed = [holding.owed for holding in model.holdings.values()]
            claimed = sum(holding.claimed for holding in model.holdings.values())
            assert P * (model.accrued - model.parked) == P * claimed + sum(owed) + model.remainder  # R1
            dust, rest = divmod(sum(each % P for each in owed) + model.remainder, P)
            assert rest == 0  # R2
            assert sum(each // P for each in owed) + claimed + dust + model.parked == model.accrued
            assert 0 <= dust <= len(owed) + model.emptied + model.greatest_remainder // P  # R3

        @invariant()
        def nobody_owes_more_than_they_have(self) -> None:
            assert all(holding.worth_scaled >= 0 for holding in self.model.holdings.values())

        @invariant()
        def nobody_loses(self) -> None:
            for holding in self.model.holdings.values():  # R7
                error = abs(holding.exact - holding.claimed - holding.exact.__class__(holding.owed, P))
                bound = holding.share_moved.__class__(self.model.greatest_remainder, P) * (1 + holding.share_moved)
                assert error <= bound + self.model.emptied

        def teardown(self) -> None:
            for driver in self.drivers:
                assert driver.differences() == []  # R16

        def step(
            self, run: Callable[[Driver, str], Numbers], model: Callable[..., Numbers], *given: object, kill: int = 0
        ) -> None:
            name = str(len(self.done))
            expected = outcome(lambda _: model(*given), None)
            answers = []
            for driver in self.drivers:
                with ExitStack() as armed:
                    for killer in desk.killers:
                        armed.enter_context(killer.at(kill))
                    answer = outcome(lambda to: run(to, name), driver)
                if answer[0] == "broken":
                    assert kill
                    answer = outcome(lambda to: run(to, name), driver)
                assert answer == expected, type(driver).__name__
                answers.append(answer)
            self.done.append((lambda to: run(to, name), answers))

    return Machine


def outcome(step: Callable[..., Numbers], driver: Driver | None) -> Outcome:
    try:
        return "done", step(driver)
    except Refused as refusal:
        return "refused", refusal.code
    except Broken:
        return "broken", {}


def prove(machine: type, *, examples: int, steps: int, shrink: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        ),
    )


@contextmanager
def real_desk(database_url: str) -> Iterator[Desk]:
    """The arithmetic, the service and the API, for every fee; the last two on one database, each on its own pools."""
    apps = {fee_bps: create_app(make_settings(database_url, fee_bps)) for fee_bps in FEES}
    killers = [BackendKiller(app.extensions["sessions"].kw["bind"]) for app in apps.values()]
    with ExitStack() as running:
        urls = {fee_bps: running.enter_context(serving(app)) for fee_bps, app in apps.items()}

        def make_drivers(fee_bps: int) -> list[Driver]:
            client = RewardsClient(urls[fee_bps], KEY, 60)
            return [MathDriver(fee_bps), ServiceDriver(apps[fee_bps]), HttpDriver(client)]

        yield Desk(make_drivers, killers)


def test_arithmetic__random_histories_up_to_2_250__is_the_model() -> None:
    desk = Desk(lambda fee_bps: [MathDriver(fee_bps)])
    prove(make_machine(desk, HUGE, NEVER), examples=100, steps=40, shrink=True)


def test_service_and_api__random_histories_with_backends_killed__are_the_model(
    make_database: Callable[[str], str],
) -> None:
    with real_desk(make_database("rewards")) as desk:
        prove(make_machine(desk, SMALL, SOMETIMES), examples=8, steps=20, shrink=False)


@pytest.mark.prove
def test_all__long_random_histories__are_the_model(make_database: Callable[[str], str]) -> None:
    prove(make_machine(Desk(lambda fee_bps: [MathDriver(fee_bps)]), HUGE, NEVER), examples=300, steps=50, shrink=True)
    with real_desk(make_database("rewards")) as desk:
        prove(make_machine(desk, SMALL, SOMETIMES), examples=20, steps=30, shrink=False)
