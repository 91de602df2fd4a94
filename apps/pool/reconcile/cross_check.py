"""Ledger against reward index, user by user: their sums may agree while two users' wei have changed places."""

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, func, select

from apps.common.database import transaction
from apps.common.wei import exact_int
from apps.flow.lanes import LaneBusy
from apps.flow.lease import extend
from apps.pool.context import PoolContext
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.members import left_and_not_requested
from apps.pool.models import Batch, Request, Walk, Withdrawal
from apps.pool.states import BatchKind
from apps.pool.walk.booking import book_reward_events

# Looked at alone in one run: enough to show a fault, and few enough for a lease.
MOST_SUSPECTS = 20
_PAGES_PER_LEASE = 20
_INDEX = ("staked_wei", "exiting_wei")
_LEDGER = ("staked_wei", "unstaking_wei")


def users_that_differ(context: PoolContext, walk: Walk) -> list[str]:
    """Users whose index weight is not their ledger's staked + unstaking, less what the protocol was asked for.

    The caller holds the walk's lane. Two lists read one after the other differ for whoever is moving, so each suspect
    is looked at again, alone in their lane; one whose lane is taken is left to the next run.
    """
    weights = _sums(context, walk, context.rewards.positions, _INDEX)
    stakes = _sums(context, walk, context.ledger.balances, _LEDGER)
    gone = _left_the_index(context, walk.id)
    suspects = [
        user for user in sorted({*weights, *stakes}) if weights.get(user, 0) + gone.get(user, 0) != stakes.get(user, 0)
    ]
    return [user for user in suspects[:MOST_SUSPECTS] if _differs(context, walk, user)]


def _differs(context: PoolContext, walk: Walk, user_id: str) -> bool:
    extend(context.sessions, walk, context.settings.lease_sec)
    try:
        with user_lanes(context, walk.id, [user_id]):
            book_reward_events(context, walk, held=frozenset({user_id}))
            weight = _sum(context.rewards.position(walk.id, user_id), _INDEX)
            stake = _sum(context.ledger.balance(walk.id, user_id), _LEDGER)
            return weight + _left_the_index(context, walk.id, Request.user_id == user_id).get(user_id, 0) != stake
    except LaneBusy:
        return False


def _sums(
    context: PoolContext, walk: Walk, read: Callable[..., dict[str, Any]], names: tuple[str, ...]
) -> dict[str, int]:
    return {item["user_id"]: _sum(item, names) for item in _all(context, walk, read)}


def _sum(item: dict[str, Any], names: tuple[str, ...]) -> int:
    return sum(int(item[name]) for name in names)


def _all(context: PoolContext, walk: Walk, read: Callable[..., dict[str, Any]]) -> Iterator[dict[str, Any]]:
    after, pages = None, 0
    while True:
        answer = read(walk.id, after=after)
        yield from answer["items"]
        after, pages = answer["next"], pages + 1
        if after is None:
            return
        if pages % _PAGES_PER_LEASE == 0:
            extend(context.sessions, walk, context.settings.lease_sec)


def _left_the_index(context: PoolContext, pool_id: str, *which: ColumnElement[bool]) -> dict[str, int]:
    """Wei by user that left the index with a batch: not requested yet, or the face of an NFT that is not paid yet."""
    asked = (
        select(Request.user_id, Request.amount_wei.label("wei"))
        .join(Batch, Batch.id == Request.batch_id)
        .where(Batch.pool_id == pool_id, Batch.kind == BatchKind.UNSTAKE, left_and_not_requested(), *which)
    )
    unpaid = (
        select(Request.user_id, Withdrawal.amount_wei)
        .join(Request, Request.id == Withdrawal.request_id)
        .where(Withdrawal.pool_id == pool_id, Withdrawal.paid_wei.is_(None), *which)
    )
    both = asked.union_all(unpaid).subquery()
    with transaction(context.sessions) as session:
        rows = session.execute(select(both.c.user_id, func.sum(both.c.wei)).group_by(both.c.user_id)).all()
    return {user_id: exact_int(wei) for user_id, wei in rows}
