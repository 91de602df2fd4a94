"""Random histories of stakes, strangers, rebases, slashings, pauses and withdrawals on the devnet, through all services.

Whatever happens in whatever order: each accrual is what the operator's stETH gained on chain, to the wei; every line of
the reconciliation agrees; and one wei too many, put anywhere, is seen.
"""

from collections.abc import Callable, Iterator
from random import Random

import pytest

from apps.clients.rewards import stake_delta
from apps.common.errors import ServiceError
from apps.common.wei import ETHER
from apps.devnet.deployment import set_balance
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk, rolled_back, start_desk
from tests.support.protocols import POOL
from tests.support.raw import raw
from tests.support.reports import check_lineages, check_statement

USERS = ("ann", "bob", "cat", "dan")
HISTORIES = 10  # one after the other on one chain, so that dust and history pile up


@pytest.fixture(scope="module")
def deployed() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


class Past:
    """One history: what happened, for the message of a failure, and the blocks of its reports."""

    def __init__(self, flows: Flows, random: Random) -> None:
        self.flows = flows
        self.desk = flows.desk
        self.random = random
        self.told: list[str] = []
        self.reports: list[int] = []

    def live(self) -> None:
        """Two stretches of what others do and what our users ask for, with the flows half way in between."""
        for _ in range(2):
            for _ in range(self.random.randint(2, 4)):
                self.happen()
            if self.random.random() < 0.5:
                self.flows.turn()
        self.calm()
        self.flows.settle()

    def happen(self) -> None:
        events: list[tuple[int, Callable[[], None]]] = [
            (4, self.stake),
            (3, self.unstake),
            (1, self.leave),
            (1, self.claim_reward),
            (3, self.gain),
            (2, self.slash),
            (2, self.finalize),
            (2, self.poll),
            (2, self.stranger_stakes),
            (1, self.stranger_gives),
            (2, self.stranger_withdraws),
            (1, self.pause),
            (1, self.calm),
            (2, self.flows.turn),
        ]
        event = self.random.choices([event for _, event in events], [weight for weight, _ in events])[0]
        self.told.append(event.__name__)
        event()

    def wei(self, most: int) -> int:
        """A size between a hundred wei and `most`, of any magnitude, and never a round number."""
        return self.random.randint(100, self.random.choice([10**4, 10**12, ETHER, most]))

    def stake(self) -> None:
        user, wei = self.random.choice(USERS), self.wei(60 * ETHER)
        self.flows.deposit(user, wei)
        self.flows.ask("stake", user, wei)

    def unstake(self) -> None:
        user = self.random.choice(USERS)
        staked = int(self.flows.position(user)["staked_wei"])
        amount: int | str = "max" if self.random.random() < 0.3 else self.random.randint(1, max(1, staked))
        self.ask("unstake", user, amount)

    def leave(self) -> None:
        """Everybody, but for dust: a later slashing meets little else than the company's own stETH."""
        for user in USERS:
            position = self.flows.position(user)
            worth = int(position["staked_wei"]) + int(position["pending_wei"])
            self.ask("unstake", user, max(1, worth - self.random.randint(0, 10**6)))

    def claim_reward(self) -> None:
        self.ask("reward_claim", self.random.choice(USERS), None)

    def ask(self, kind: str, user: str, amount: int | str | None) -> None:
        try:
            self.flows.ask(kind, user, amount)
        except ServiceError as refusal:  # nothing staked, or too little: no harm done
            self.told.append(refusal.code)

    def gain(self) -> None:
        self.report(self.wei(90 * ETHER))

    def slash(self) -> None:
        self.report(-self.wei(300 * ETHER))

    def finalize(self) -> None:
        self.report(self.random.choice([0, 0, ETHER, -ETHER]), finalize=True)

    def report(self, delta: int, *, finalize: bool = False) -> None:
        first, last = self.desk.queue.getLastFinalizedRequestId().call(), self.desk.queue.getLastRequestId().call()
        up_to = self.random.randint(first + 1, last) if finalize and last > first else None
        self.reports.append(self.desk.oracle.rebase(delta, up_to).block_number)

    def poll(self) -> None:
        self.flows.claims()

    def stranger_stakes(self) -> None:
        if not self.desk.lido.isStakingPaused().call():
            self.desk.oracle.stranger_submit(self.wei(5_000 * ETHER))

    def stranger_gives(self) -> None:
        self.desk.oracle.stranger_transfer(self.desk.operator, self.wei(ETHER // 100))

    def stranger_withdraws(self) -> None:
        stranger = self.desk.deployment.stranger
        if not self.desk.queue.isPaused().call():
            self.desk.request(stranger, [self.wei(900 * ETHER)])

    def pause(self) -> None:
        self.random.choice([self.desk.oracle.pause_staking, self.desk.oracle.pause_queue])()

    def calm(self) -> None:
        if self.desk.lido.isStakingPaused().call():
            self.desk.oracle.resume_staking()
        if self.desk.queue.isPaused().call():
            self.desk.oracle.resume_queue()

    def gained(self) -> int:
        """What the chain says: the operator's stETH in each report's block, which holds nothing else, less before."""
        balance = self.desk.lido.balanceOf(self.desk.operator)
        return sum(
            balance.call(block_identifier=block) - balance.call(block_identifier=block - 1) for block in self.reports
        )


def tamper(flows: Flows, number: int) -> None:
    """One wei too many or too few, in one place after the other; seen by its name, then put right again."""
    desk, ledger = flows.desk, flows.ledger
    places = ("coin", "reward", "dust", "weight")
    place = places[number % len(places)]
    name = f"tamper:{number}"
    if place == "coin":
        held = desk.balance(desk.operator)
        set_balance(desk.web3, desk.operator, held - 1)
        assert flows.drifts() == {"eth": -1}
        set_balance(desk.web3, desk.operator, held)
    elif place == "weight":
        flows.context.rewards.stake_deltas(POOL, [stake_delta(name, "ann", 1)])
        assert flows.drifts() == {"weight": -1}
        flows.context.rewards.stake_deltas(POOL, [stake_delta(f"{name}:undo", "ann", -1)])
    else:
        kind = {"reward": "reward_accrue", "dust": "rounding_gain"}[place]
        ledger.post_movement(name, kind, POOL, None, 1)
        expected = {"reward": {"lido": -1, "rewards": 1}, "dust": {"lido": -1}}[place]
        assert flows.drifts() == expected
        ledger.post_movement(f"{name}:undo", "reversal", POOL, None, 1, name)
    desk.oracle.mine()


def run(desk: Desk, make_database: Callable[[str], str], seed: int, histories: int) -> None:
    random = Random(seed)
    with rolled_back(desk), running_flows(desk, make_database) as flows:
        for number in range(histories):
            past = Past(flows, random)
            before = int(raw(flows.context.rewards).pool(POOL)["accrued_wei"]) if number else 0
            try:
                past.live()
                accrued = int(raw(flows.context.rewards).pool(POOL)["accrued_wei"]) - before
                assert accrued == past.gained()
                assert flows.drifts() == {}
                if number % 3 == 2:
                    tamper(flows, seed + number // 3)
            except BaseException:
                print(f"seed {seed}, history {number}: {' '.join(past.told)}")
                raise
        assert flows.drifts() == {}
        for user in USERS:
            check_statement(flows.context, user)
        assert check_lineages(flows.context) > 0
        assert raw(flows.ledger).audit(POOL)["ok"]
        assert flows.context.rewards.post("/v1/audits", {})["ok"]


@pytest.mark.parametrize("seed", [1_000])
def test_random_histories__accruals_and_books__equal_the_chain_to_the_wei(
    deployed: Desk, make_database: Callable[[str], str], seed: int
) -> None:
    run(deployed, make_database, seed, 4)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(20))
def test_two_hundred_random_histories__accruals_and_books__equal_the_chain_to_the_wei(
    deployed: Desk, make_database: Callable[[str], str], seed: int
) -> None:
    run(deployed, make_database, seed, HISTORIES)
