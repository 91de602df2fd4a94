"""Fairness: with any mixture of impossible requests every possible one completes, and every impossible one has its reason.

Stakes above the protocol's limit or the relayer's cap, unstakes that no transaction holds, payouts without funds, a batch
that ops have parked: drawn at random among honest requests, on the real services, a real chain and a real database.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from sqlalchemy import select, update

from apps.clients.protocols import ProtocolsClient
from apps.clients.relayer import RelayerClient
from apps.clients.shapes.pool import NewStake
from apps.common.database import transaction
from apps.common.errors import InvalidInput
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.devnet.deployment import set_balance
from apps.flow.lease import acquire
from apps.flow.outcome import Park
from apps.flow.runner import write
from apps.pool.flows.batches import BatchFlow
from apps.pool.flows.limits import MAX_UNSTAKE_WEI
from apps.pool.models import Batch, Request
from apps.pool.service import PoolService
from apps.pool.states import RequestKind
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk, rolled_back, start_desk
from tests.support.protocols import KEY, NOBODY, POOL
from tests.support.raw import raw
from tests.support.relayer import STRANGER

PER_TX = 2000 * ETHER  # more than the operator ever holds here
LIMIT = 30 * ETHER
TURNS = 150


@pytest.fixture(scope="module")
def deployed() -> Iterator[Desk]:
    with start_desk() as desk:
        yield desk


NOBODY_PROTOCOLS = ProtocolsClient(NOBODY, KEY, 1.0)
NOBODY_RELAYER = RelayerClient(NOBODY, "", 1.0)


class Crowd:
    """Who asks for what, and what must come of it."""

    def __init__(self, flows: Flows, random: Random) -> None:
        self.flows, self.random = flows, random
        self.possible: list[dict[str, Any]] = []
        self.impossible: dict[str, str] = {}  # id to the reason's code
        self.payouts: list[str] = []
        self.number = 0

    def user(self) -> str:
        self.number += 1
        return f"user-{self.number}"

    def stake(self) -> None:
        user, wei = self.user(), self.random.randint(1, LIMIT)
        self.flows.deposit(user, wei)
        self.possible.append(self.flows.ask("stake", user, wei))

    def unstake(self) -> None:
        wei = self.random.randint(100, ETHER)
        self.possible.append(self.flows.ask("unstake", "settled", wei))

    def stake_above_what_can_be(self) -> None:
        """Above the limit or the cap: taken while that was not known, as it was accepted while protocols was down."""
        user, wei = self.user(), self.random.choice([LIMIT + 1, 2 * LIMIT, PER_TX + 1])
        raw(self.flows.ledger).post_movement(f"deposit:{user}", "deposit", POOL, user, wei)
        service = PoolService(replace(self.flows.context, protocols=NOBODY_PROTOCOLS, relayer=NOBODY_RELAYER))
        body = NewStake(user_id=user, pool_id=POOL, amount_wei=wei)
        made = service.create(RequestKind.STAKE, f"stake:{user}", body)[0]
        self.impossible[made.id] = "stake_above_limit"

    def stake_refused(self) -> None:
        user = self.user()
        with pytest.raises(InvalidInput):
            self.flows.ask("stake", user, LIMIT + 1)

    def unstake_above_what_can_be(self) -> None:
        made = self.flows.ask("unstake", "settled", ETHER)
        with transaction(self.flows.context.sessions) as session:
            row = update(Request).where(Request.id == made["id"], Request.status == "queued")
            session.execute(row.values(amount_wei=MAX_UNSTAKE_WEI + self.random.randint(1, 99)))
        self.impossible[made["id"]] = "unstake_above_limit"

    def payout(self) -> None:
        name = f"payout:{len(self.payouts)}"
        self.payouts.append(name)
        self.flows.context.relayer.post(
            "/v1/transactions",
            {"message_id": name, "to": STRANGER, "data": "0x", "value_wei": str(PER_TX - 1), "purpose": "payout"},
        )

    def park_an_unstake(self) -> None:
        with transaction(self.flows.context.sessions) as session:
            found = session.scalars(
                select(Batch.id).where(Batch.pool_id == POOL, Batch.kind == "unstake", Batch.status == "batched")
            ).first()
        for batch in acquire(self.flows.context.sessions, Batch, 60.0, row_id=found, early=True) if found else []:
            with transaction(self.flows.context.sessions) as session:
                members = set(session.scalars(select(Request.id).where(Request.batch_id == batch.id)))
            write(BatchFlow(self.flows.context), batch, Park({"code": "attempts_exhausted", "detail": "For a test."}))
            self.impossible |= dict.fromkeys(members, "attempts_exhausted")
            self.possible = [made for made in self.possible if made["id"] not in members]

    def come(self) -> None:
        self.random.choices(
            [
                self.stake,
                self.unstake,
                self.stake_above_what_can_be,
                self.stake_refused,
                self.unstake_above_what_can_be,
                self.payout,
                self.flows.batching,
                self.park_an_unstake,
                self.flows.turn,
            ],
            weights=[5, 3, 2, 1, 1, 2, 2, 1, 1],
        )[0]()

    def waiting(self) -> list[Any]:
        found = [self.flows.request(made) for made in self.possible]
        return [(item["kind"], item["status"], item["reason"]) for item in found if item["status"] != "completed"]


def live(flows: Flows, seed: int) -> None:
    random = Random(seed)
    crowd = Crowd(flows, random)
    for _ in range(18):
        crowd.come()
    for _ in range(TURNS):
        flows.turn()
        flows.desk.oracle.mine()  # the stake limit refills with blocks
        if not any(status in {"queued", "batched", "requesting"} for _, status, _ in crowd.waiting()):
            flows.desk.oracle.finalize()
            flows.claims()
        if not crowd.waiting():
            break
    assert crowd.waiting() == [], f"seed {seed}"
    for request_id, code in crowd.impossible.items():
        found = dump(flows.reads.request(request_id))
        assert (found["status"], found["reason"]["code"]) in {
            ("queued", code),
            ("needs_attention", code),
        }, f"seed {seed}"
        assert found["reason"]["detail"]
    for name in crowd.payouts:
        found = raw(flows.context.relayer).transaction(name) or {}
        assert (found["status"], found["reason"]["code"]) == ("queued", "insufficient_funds"), f"seed {seed}"
    for books in (flows.context.ledger, flows.context.rewards):
        assert raw(books).audit(POOL)["ok"], f"seed {seed}"


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 23))])
def test_fairness__any_mixture_of_impossible_requests__every_possible_one_completes(
    deployed: Desk, make_database: Callable[[str], str], seed: int
) -> None:
    with rolled_back(deployed) as desk:
        desk.oracle.set_stake_limit(LIMIT, 10)
        relayer = {"max_value_per_tx_wei": PER_TX, "max_in_flight": 4}
        with running_flows(desk, make_database, relayer=relayer) as flows:
            flows.stake("settled", 25 * ETHER)
            with_no_purse(flows)
            live(flows, seed)


def with_no_purse(flows: Flows) -> None:
    """The payouts ask for more than the operator ever has: its purse goes to the company, but for gas money."""
    set_balance(flows.desk.web3, flows.desk.operator, 10 * ETHER)
