"""The pool's web process killed between any two steps of a POST: the request is made once, reserved once, and finished."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import func, select, update

from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.pool.feed import number_events
from apps.pool.flows.requests import advance
from apps.pool.models import Request, RequestEvent, UserLane
from tests.support.pool import FullHouse, full_house, pool_house
from tests.support.protocols import KEY
from tests.support.workers import Worker

STAKE = {"message_id": "s:1", "user_id": "ann", "amount_wei": str(ETHER)}
# Where the process dies, and what the POST again finds: nothing, or the request that was made.
POINTS = {"pool.opening": 201, "pool.opened": 200, "pool.closing": 200, "pool.closed": 200}


def post_and_die(database_url: str, urls: dict[str, str]) -> None:
    """What a web process does that is killed at a point."""
    pool_house(database_url, **urls).client().post("/v1/stakes", json=STAKE, headers={HEADER: KEY})


def end_leases(full: FullHouse) -> None:
    with transaction(full.pool.context.sessions) as session:
        session.execute(update(Request).where(Request.lease_token.is_not(None)).values(lease_until=func.now()))
        session.execute(update(UserLane).values(held_until=func.now()))


@pytest.mark.parametrize("point", POINTS)
def test_post__killed_at_a_point__made_once_reserved_once_and_finished(
    make_database: Callable[[str], str], point: str
) -> None:
    with full_house(make_database) as full:
        full.deposit("ann", 3 * ETHER)
        settings = full.pool.context.settings
        urls = {"ledger_url": settings.ledger_url, "rewards_url": settings.rewards_url}
        process = Worker(partial(post_and_die, settings.database_url, urls), {"STAKING_CRASHPOINT": point})
        assert process.dead(60)
        assert process.killed_itself()
        again = full.post("/v1/stakes", STAKE)
        assert again.status_code == POINTS[point]
        end_leases(full)
        advance(full.pool.context)
        number_events(full.pool.context.sessions)
        assert full.get(f"/v1/requests/{again.get_json()['id']}")["status"] == "queued"
        assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)
        with transaction(full.pool.context.sessions) as session:
            told = session.execute(select(RequestEvent.sequence, RequestEvent.status).order_by(RequestEvent.sequence))
            assert [tuple(event) for event in told] == [(1, "reserving"), (2, "queued")]
            assert session.scalars(select(UserLane)).all() == []
