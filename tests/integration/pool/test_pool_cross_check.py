"""Ledger and reward index, user by user."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import update

from apps.clients.rewards import stake_delta
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.pool.flows.lanes import user_lanes
from apps.pool.models import Batch, Request, Withdrawal
from apps.pool.reconcile.cross_check import users_that_differ
from apps.pool.walk.lane import walk_lane
from tests.support.pool import FullHouse, full_house
from tests.support.protocols import POOL


@pytest.fixture
def house(make_database: Callable[[str], str]) -> Iterator[FullHouse]:
    """Ann and ben hold one ether each, in both books."""
    with full_house(make_database) as found:
        for user in ("ann", "ben"):
            found.deposit(user, ETHER)
            for kind in ("stake_reserve", "stake_confirm"):
                found.ledger.post_movement(f"{user}:{kind}", kind, POOL, user, ETHER)
            found.rewards.stake_deltas(POOL, [stake_delta(f"{user}:in", user, ETHER)])
        yield found


def differing(house: FullHouse) -> list[str]:
    context = house.pool.context
    with walk_lane(context, POOL) as walk:
        return users_that_differ(context, walk)


def test_users__equal_in_both_books_and_after_a_claim_nobody_booked__none(house: FullHouse) -> None:
    assert differing(house) == []
    house.ledger.post_movement("rebase:book", "reward_accrue", POOL, None, 10)
    house.rewards.accrue("rebase", POOL, 10, "test")
    house.rewards.claim("claim", POOL, "ann")
    assert differing(house) == []  # booked on the way
    assert house.balance("ann")[2] == ETHER + 5


def test_users__wei_changed_places_though_the_sums_agree__both_named(house: FullHouse) -> None:
    house.rewards.stake_deltas(POOL, [stake_delta("a", "ann", -7), stake_delta("b", "ben", 7)])
    assert differing(house) == ["ann", "ben"]


def test_users__in_the_middle_of_a_step__left_to_the_next_run(house: FullHouse) -> None:
    house.rewards.stake_deltas(POOL, [stake_delta("a", "ann", -7)])
    with user_lanes(house.pool.context, POOL, ["ann"]):
        assert differing(house) == []
    assert differing(house) == ["ann"]


def test_users__unstake_that_left_the_index__counted_until_its_nft_is_paid(house: FullHouse) -> None:
    context = house.pool.context
    (request_id,) = house.pool.queue_stakes([ETHER // 2], kind="unstake", user_id="ann", status="requesting")
    house.ledger.post_movement("out", "unstake_start", POOL, "ann", ETHER // 2)
    house.rewards.stake_deltas(POOL, [stake_delta("out", "ann", -(ETHER // 2))])
    assert differing(house) == ["ann"]
    with transaction(context.sessions) as session:
        session.add(
            Batch(id="batch", kind="unstake", pool_id=POOL, status="requesting", amount_wei=ETHER // 2, request_count=1)
        )
        session.flush()
        session.execute(update(Request).where(Request.id == request_id).values(batch_id="batch"))
    assert differing(house) == []
    with transaction(context.sessions) as session:
        session.execute(update(Request).where(Request.id == request_id).values(status="waiting"))
        session.add(
            Withdrawal(
                withdrawal_id=1, pool_id=POOL, request_id=request_id, batch_id="batch", amount_wei=ETHER // 2, shares=1
            )
        )
    assert differing(house) == []
    with transaction(context.sessions) as session:
        session.execute(update(Withdrawal).values(paid_wei=ETHER // 2))
    assert differing(house) == ["ann"]  # paid, and not yet settled in the ledger
    house.ledger.post_movement("paid", "unstake_settle", POOL, "ann", ETHER // 2)
    assert differing(house) == []
