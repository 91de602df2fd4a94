"""Index and books side by side over parts of a stake batch: whichever of the two fails in between, each user is staked once."""

from collections.abc import Sequence
from functools import partial

import pytest

from apps.clients.base import CallFailed
from apps.clients.shapes.ledger import BatchAnswer, NewMovement
from apps.clients.shapes.rewards import StakeDelta, StakeDeltasAnswer
from apps.common.wei import ETHER
from apps.pool.flows import stake
from apps.pool.walk.increasing import increase
from tests.support.flows import Flows

USERS = ("ann", "bob", "cat", "dan", "eve")
LAST = "eve"


class Falling:
    """A service that acts on the last user's part and whose answer is lost, or that does not act at all."""

    def __init__(self, *, acts: bool) -> None:
        self.acts = acts
        self.fell = 0

    def falls(self, users: Sequence[str | None]) -> bool:
        return LAST in users and self.fell == 0

    def fall(self) -> CallFailed:
        self.fell += 1
        return CallFailed("gone")


@pytest.mark.parametrize("acts", [True, False])
@pytest.mark.parametrize("service", ["rewards", "ledger"])
def test_stake_batch__a_service_falls_in_a_later_part__each_user_staked_once_in_index_and_books(
    flows: Flows, service: str, monkeypatch: pytest.MonkeyPatch, *, acts: bool
) -> None:
    falling = Falling(acts=acts)
    post, move = flows.context.ledger.post_batch, flows.context.rewards.stake_deltas

    def post_batch(movements: Sequence[NewMovement]) -> BatchAnswer:
        if service == "ledger" and falling.falls([row.user_id for row in movements if row.kind == "stake_confirm"]):
            if acts:
                post(movements)
            raise falling.fall()
        return post(movements)

    def stake_deltas(pool_id: str, deltas: Sequence[StakeDelta]) -> StakeDeltasAnswer:
        if service == "rewards" and falling.falls([row.user_id for row in deltas]):
            if acts:
                move(pool_id, deltas)
            raise falling.fall()
        return move(pool_id, deltas)

    monkeypatch.setattr(stake, "increase", partial(increase, per_part=2))
    monkeypatch.setattr(flows.context.ledger, "post_batch", post_batch)
    monkeypatch.setattr(flows.context.rewards, "stake_deltas", stake_deltas)
    for user in USERS:
        flows.deposit(user, ETHER)
    asked = [flows.ask("stake", user, ETHER) for user in USERS]
    flows.settle()
    assert falling.fell == 1
    assert {flows.request(made)["status"] for made in asked} == {"completed"}
    assert {int(flows.balance(user)["staked_wei"]) for user in USERS} == {ETHER}
    assert {int(flows.position(user)["staked_wei"]) for user in USERS} == {ETHER}
    assert flows.reconcile()["verdict"] == "ok"
