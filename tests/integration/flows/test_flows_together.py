"""Items that the walk books together: a halt, a busy user or a dead worker in the midst of them, and any other cut afterwards."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, text, update

from apps.clients.protocols import ProtocolsClient
from apps.clients.shapes.protocols import LidoReceipt
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.flow.lease import LeaseLost
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.unstake import store_withdrawals
from apps.pool.flows.withdrawal_claim import book_claims
from apps.pool.models import Walk
from apps.pool.walk.booking import Item, item_of
from apps.pool.walk.lane import acquire_walk, walk_lane
from tests.integration.world.test_world_ways_out import goes_on, halt_of, say
from tests.support.flows import Flows
from tests.support.protocols import KEY, POOL
from tests.support.raw import raw

USERS = ("ann", "bob", "cat")
FACE = 4 * ETHER


class CountedReceipts(ProtocolsClient):
    """Counts the receipts that are read."""

    receipts = 0

    def receipt(self, tx_hash: str) -> LidoReceipt | None:
        self.receipts += 1
        return super().receipt(tx_hash)


def counted(flows: Flows) -> CountedReceipts:
    protocols = CountedReceipts(flows.context.settings.protocols_url, KEY, 30.0)
    flows.context = replace(flows.context, protocols=protocols)
    return protocols


def leaving(flows: Flows) -> list[dict[str, Any]]:
    """An unstake of each user, waiting at Lido: NFT 1, 2 and 3."""
    flows.stakes(dict.fromkeys(USERS, 10 * ETHER))
    asked = [flows.ask("unstake", user, FACE) for user in USERS]
    flows.settle()
    return asked


def statuses(flows: Flows, asked: Sequence[dict[str, Any]]) -> list[str]:
    return [flows.request(made)["status"] for made in asked]


def available(flows: Flows) -> list[int]:
    return [int(flows.balance(user)["available_wei"]) for user in USERS]


def claim_by_hand(flows: Flows, ids: Sequence[int]) -> None:
    """One transaction that claims NFTs which one report finalized, so that all have the first checkpoint for a hint."""
    flows.by_hand(flows.desk.queue.claimWithdrawalsTo(list(ids), [1] * len(ids), flows.desk.operator))
    flows.desk.oracle.mine()


def ahead(flows: Flows, kind: str) -> list[Item]:
    """The items of a kind that the walk has not booked yet."""
    walk = flows.walk()
    page = flows.context.protocols.history(f"{walk.cursor_block}:{walk.cursor_log_index}", 200)
    return [item_of(item) for item in page.items if item.kind == kind]


def requested(flows: Flows) -> list[Item]:
    """Everybody's unstakes go to Lido in one request, which the walk has not met yet."""
    while not ahead(flows, "request"):
        flows.requests()
        flows.batching()
        flows.batches()
        flows.pump()
        flows.desk.oracle.mine()
    return ahead(flows, "request")


def place(flows: Flows) -> tuple[int, int]:
    walk = flows.walk()
    return walk.cursor_block, walk.cursor_log_index


def frozen_past_its_lease(flows: Flows) -> Walk:
    """A walk whose worker slept so long that another one has the lane by now, and has given it back."""
    walk = acquire_walk(flows.context, POOL)
    assert walk is not None
    with transaction(flows.context.sessions) as session:
        session.execute(update(Walk).values(lease_until=func.now() - text("interval '1 s'")))
    assert acquire_walk(flows.context, POOL) is not None
    with transaction(flows.context.sessions) as session:
        session.execute(update(Walk).values(lease_token=None, lease_until=None))
    return walk


def test_claims__of_one_transaction_one_of_them_short__one_receipt_and_each_is_paid_by_its_log(flows: Flows) -> None:
    asked = leaving(flows)
    flows.desk.oracle.finalize(1)
    flows.desk.oracle.rebase(-1_000 * ETHER)
    flows.settle()
    flows.desk.oracle.finalize()
    assert flows.claims() == 1
    protocols = counted(flows)
    flows.settle()
    assert statuses(flows, asked) == ["completed"] * 3
    assert protocols.receipts == 1
    paid = [int(flows.request(made)["settled_wei"]) for made in asked]
    assert paid[0] in {FACE, FACE - 1}
    assert all(FACE * 98 // 100 < wei < FACE * 995 // 1000 for wei in paid[1:])
    assert available(flows) == paid
    short = {
        item["user_id"]: int(item["amount_wei"])
        for item in raw(flows.ledger).movements(kind="unstake_shortfall")["items"]
    }
    assert [short.get(user, 0) for user in USERS] == [FACE - wei for wei in paid]
    assert flows.drifts() == {}


def test_request__of_three_withdrawals__one_receipt_and_the_cursor_behind_the_last(flows: Flows) -> None:
    flows.stakes(dict.fromkeys(USERS, 10 * ETHER))
    asked = [flows.ask("unstake", user, FACE) for user in USERS]
    items = requested(flows)
    protocols = counted(flows)
    with walk_lane(flows.context, POOL) as walk:
        store_withdrawals(flows.context, walk, items)
    assert protocols.receipts == 1
    assert place(flows) == (items[-1].block_number, items[-1].log_index)
    assert statuses(flows, asked) == ["waiting"] * 3
    assert [flows.request(made)["withdrawals"][0]["withdrawal_id"] for made in asked] == [1, 2, 3]
    flows.settle()
    assert flows.drifts() == {}


def test_claims__some_of_a_transaction__the_cursor_is_behind_the_last_of_them(flows: Flows) -> None:
    asked = leaving(flows)
    flows.desk.oracle.finalize()
    claim_by_hand(flows, [1, 2, 3])
    items = ahead(flows, "claim")
    with walk_lane(flows.context, POOL) as walk:
        book_claims(flows.context, walk, items[:2])
    assert place(flows) == (items[1].block_number, items[1].log_index)
    assert statuses(flows, asked) == ["completed", "completed", "waiting"]
    flows.walking()
    assert statuses(flows, asked) == ["completed"] * 3
    assert flows.drifts() == {}


def test_claims__one_in_the_middle_nobody_asked_for__halts_at_it_and_ops_decide_about_it_alone(flows: Flows) -> None:
    desk = flows.desk
    ann, bob = (flows.stake(user, 10 * ETHER) for user in USERS[:2])
    ann = flows.ask("unstake", "ann", FACE)
    flows.settle()
    desk.submit(desk.deployment.stranger, 20 * ETHER)
    desk.approve(desk.deployment.stranger, 20 * ETHER)
    desk.do(desk.queue.requestWithdrawals([2 * ETHER], desk.operator), desk.deployment.stranger)
    bob = flows.ask("unstake", "bob", FACE)
    flows.settle()
    desk.oracle.finalize()
    claim_by_hand(flows, [1, 2, 3])
    halt = halt_of(flows)
    first, gift, last = ahead_of(flows, halt)
    assert (halt["code"], halt["log_index"]) == ("unknown_withdrawal", gift)
    assert flows.walk().cursor_log_index == first
    assert statuses(flows, [ann, bob]) == ["completed", "waiting"]
    say(flows, "adopt_as_company", halt)
    goes_on(flows)
    assert statuses(flows, [ann, bob]) == ["completed", "completed"]
    adopted = raw(flows.ledger).movements(kind="manual_claim", pool_id=POOL)["items"]
    assert len(adopted) == 1
    assert 2 * ETHER - int(adopted[0]["amount_wei"]) in {0, 1}
    assert last > gift
    assert flows.drifts() == {}


def ahead_of(flows: Flows, halt: dict[str, Any]) -> list[int]:
    """The log indexes of the claims in the block of a halt."""
    page = flows.context.protocols.history(f"{halt['block_number'] - 1}:1000000", 200)
    return [item.log_index for item in page.items if item.kind == "claim"]


def test_claims__one_user_busy__those_before_are_paid_at_once_and_the_others_in_a_moment(flows: Flows) -> None:
    asked = leaving(flows)
    flows.desk.oracle.finalize()
    claim_by_hand(flows, [1, 2, 3])
    with user_lanes(flows.context, POOL, ["bob"]):
        flows.walking()
        assert statuses(flows, asked) == ["completed", "waiting", "waiting"]
    flows.walking()
    assert statuses(flows, asked) == ["completed"] * 3
    assert flows.drifts() == {}


@pytest.mark.parametrize("cut", [pytest.param(1, marks=pytest.mark.prove), 2, pytest.param(3, marks=pytest.mark.prove)])
def test_claims__a_worker_gone_between_effects_and_cursor__any_other_cut_pays_each_once(flows: Flows, cut: int) -> None:
    asked = leaving(flows)
    flows.desk.oracle.finalize()
    claim_by_hand(flows, [1, 2, 3])
    items = ahead(flows, "claim")
    assert len(items) == 3
    walk = frozen_past_its_lease(flows)
    with pytest.raises(LeaseLost):
        book_claims(flows.context, walk, items[:cut])
    paid = available(flows)
    assert [wei > 0 for wei in paid] == [number < cut for number in range(3)]
    assert statuses(flows, asked) == ["waiting"] * 3
    flows.walking()
    assert statuses(flows, asked) == ["completed"] * 3
    assert available(flows)[:cut] == paid[:cut]
    assert flows.drifts() == {}


@pytest.mark.parametrize("cut", [2, pytest.param(3, marks=pytest.mark.prove)])
def test_request__a_worker_gone_between_effects_and_cursor__any_other_cut_stores_each_once(
    flows: Flows, cut: int
) -> None:
    """All of everybody's: rounding leaves the operator some wei short, which are cut off in the books with the last one."""
    flows.stakes({user: 10 * ETHER + 333 * number + 1 for number, user in enumerate(USERS)})
    asked = [flows.ask("unstake", user, "max") for user in USERS]
    items = requested(flows)
    assert len(items) == 3
    walk = frozen_past_its_lease(flows)
    with pytest.raises(LeaseLost):
        store_withdrawals(flows.context, walk, items[:cut])
    cuts = raw(flows.ledger).movements(kind="unstake_cut", pool_id=POOL)["items"]
    assert len(cuts) == (cut == 3)
    flows.settle()
    assert statuses(flows, asked) == ["waiting"] * 3
    assert len(raw(flows.ledger).movements(kind="unstake_cut", pool_id=POOL)["items"]) == 1
    assert flows.drifts() == {}
