"""A loss settled one position at a time, with everything else in between, is the loss settled at once, to the wei.

The model settles a loss in the moment it is told of it. The service is given one position a piece and one piece a call, so
that claims, stakes and unstakes fall between the pieces, and its database backend is ended at random statements. Every
answer is the model's, nobody is ever worth anything else than in the model, an audit finds nothing at any moment, and
once all is settled every number is the model's.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apps.rewards import create_app
from tests.property.rewards.test_rewards_model import PARTS, SMALL, SOMETIMES, USERS, Outcome, outcome, prove
from tests.support.backends import BackendKiller
from tests.support.rewards import make_settings, settle_in_pieces
from tests.support.rewards_drivers import ServiceDriver
from tests.support.rewards_model import Delta, Model, Numbers

ASK_AGAIN: Outcome = ("refused", "in_progress")
GREAT = st.one_of(st.integers(10**9, 10**19), st.integers(1, 30))


def make_machine(app: Any, piece: int) -> type:
    settle_in_pieces(app, piece)
    killer = BackendKiller(app.extensions["sessions"].kw["bind"])

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()
            self.driver = ServiceDriver(app)
            self.steps = 0
            # The call that was told to ask again, and what it must be answered at last.
            self.unanswered: tuple[Callable[[], Numbers], Outcome] | None = None

        @initialize(stakes=st.lists(st.tuples(USERS, GREAT, st.sampled_from([0, 7])), min_size=2, max_size=4))
        def begin(self, stakes: list[Delta]) -> None:
            self.same(lambda name: self.driver.stake(name, stakes), lambda: self.model.stake(stakes))

        @property
        def settling(self) -> bool:
            return bool(self.driver.reads.pool(self.driver.pool_id).settling)

        @precondition(lambda self: not self.settling)
        @rule(part=PARTS, kill=SOMETIMES)
        def lose(self, part: int, kill: int) -> None:
            loss = self.model.weight * part // 1000
            self.moves_index(lambda name: self.driver.accrue(name, -loss), lambda: self.model.accrue(-loss), kill)

        @precondition(lambda self: not self.settling)
        @rule(part=PARTS, kill=SOMETIMES)
        def release(self, part: int, kill: int) -> None:
            amount = self.model.parked * part // 1000
            if amount != 0:
                self.moves_index(
                    lambda name: self.driver.release(name, amount), lambda: self.model.release(amount), kill
                )

        @rule(reward=SMALL, kill=SOMETIMES)
        def gain(self, reward: int, kill: int) -> None:
            """While a loss is being settled, the gain settles on, and is told to come again until all is done."""
            self.moves_index(lambda name: self.driver.accrue(name, reward), lambda: self.model.accrue(reward), kill)
            assert not self.settling

        @precondition(lambda self: self.settling)
        @rule(kill=SOMETIMES)
        def settle_a_piece(self, kill: int) -> None:
            with killer.at(kill):
                outcome(lambda _: self.driver._call(lambda: self.driver.service.settle(self.driver.pool_id)), None)

        @precondition(lambda self: self.settling)
        @rule()
        def settle_and_ask_again(self) -> None:
            while self.settling:
                self.driver.service.settle(self.driver.pool_id)
            self.settled_answer()

        @rule(user=USERS, kill=SOMETIMES)
        def claim(self, user: str, kill: int) -> None:
            self.same(lambda name: self.driver.claim(name, user), lambda: self.model.claim(user), kill)

        @rule(deltas=st.lists(st.tuples(USERS, SMALL, st.just(0)), min_size=1, max_size=3), kill=SOMETIMES)
        def stake(self, deltas: list[Delta], kill: int) -> None:
            self.same(lambda name: self.driver.stake(name, deltas), lambda: self.model.stake(deltas), kill)

        @rule(user=USERS, part=PARTS, moves=st.booleans(), kill=SOMETIMES)
        def unstake(self, user: str, part: int, *, moves: bool, kill: int) -> None:
            """A part of what the loss has left, or a little more than that: whoever leaves has borne it."""
            held = self.model.positions().get(user)
            amount = max(1, (held["staked_wei"] if held else 0) * part // 1000)
            deltas = [(user, -amount, amount if moves else 0)]
            self.same(lambda name: self.driver.stake(name, deltas), lambda: self.model.stake(deltas), kill)

        @invariant()
        def nobody_is_worth_anything_else(self) -> None:
            mine, models = self.driver.positions(), self.model.positions()
            assert {user: worth(each) for user, each in mine.items()} == {
                user: worth(each) for user, each in models.items()
            }
            assert self.driver.pool()["acc_reward_per_share"] == self.model.index

        @invariant()
        def once_settled_all_is_the_models(self) -> None:
            if not self.settling:
                assert (self.driver.pool(), self.driver.positions()) == (self.model.pool(), self.model.positions())

        @invariant()
        def an_audit_finds_nothing(self) -> None:
            assert self.driver.differences() == []

        def same(
            self, call: Callable[[str], Numbers], model: Callable[[], Numbers], kill: int = 0, name: str | None = None
        ) -> None:
            name = name or self.name()
            expected = outcome(lambda _: model(), None)
            assert self.asked(lambda: call(name), kill) == expected

        def moves_index(self, call: Callable[[str], Numbers], model: Callable[[], Numbers], kill: int) -> None:
            name, settling = self.name(), self.settling
            if settling:  # nothing may move the index now: the call first settles to the end
                while self.asked(lambda: call(name), kill) == ASK_AGAIN:
                    kill = 0
                self.settled_answer()
                expected = outcome(lambda _: model(), None)
            else:
                expected = outcome(lambda _: model(), None)
                answer = self.asked(lambda: call(name), kill)
                if answer == ASK_AGAIN:
                    self.unanswered = (lambda: call(name), expected)
                    return
            assert self.asked(lambda: call(name), 0) == expected

        def settled_answer(self) -> None:
            """The same bytes for the call that began it, however long that took."""
            if self.unanswered is not None:
                call, expected = self.unanswered
                self.unanswered = None
                assert self.asked(call, 0) == expected

        def asked(self, call: Callable[[], Numbers], kill: int) -> Outcome:
            with killer.at(kill):
                answer = outcome(lambda _: call(), None)
            return outcome(lambda _: call(), None) if answer[0] == "broken" else answer

        def name(self) -> str:
            self.steps += 1
            return str(self.steps)

    return Machine


def worth(position: Numbers) -> int:
    return position["staked_wei"] + position["exiting_wei"] + position["pending_wei"]


@pytest.mark.parametrize("piece", [1, pytest.param(2, marks=pytest.mark.prove)])
def test_loss__settled_in_pieces_with_everything_in_between_and_backends_killed__is_the_model(
    make_database: Callable[[str], str], piece: int
) -> None:
    app = create_app(make_settings(make_database("rewards")))
    prove(make_machine(app, piece), examples=5, steps=25, shrink=False)


@pytest.mark.prove
def test_loss__long_histories_in_pieces__are_the_model(make_database: Callable[[str], str]) -> None:
    app = create_app(make_settings(make_database("rewards")))
    prove(make_machine(app, 1), examples=40, steps=40, shrink=False)
