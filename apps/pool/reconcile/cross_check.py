"""Ledger against reward index, user by user: their sums may agree while two users' wei have changed places."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, func, select

from apps.clients.base import pages
from apps.clients.shapes.ledger import Balance
from apps.clients.shapes.rewards import Position
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

Item = TypeVar("Item")


def users_that_differ(context: PoolContext, walk: Walk) -> list[str]:
    """Users whose index weight is not their ledger's staked + unstaking, less what the protocol was asked for.

    The caller holds the walk's lane. Two lists read one after the other differ for a user who is moving, so each suspect
    is looked at again, alone in their lane; one whose lane is taken is left to the next run.
    """
    positions = _kept(context, walk, pages(lambda after: context.rewards.positions(walk.id, after)))
    weights = {position.user_id: _weight(position) for position in positions}
    balances = _kept(context, walk, pages(lambda after: context.ledger.balances(walk.id, after)))
    stakes = {balance.user_id: _stake(balance) for balance in balances}
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
            weight = _weight(context.rewards.position(walk.id, user_id))
            stake = _stake(context.ledger.balance(walk.id, user_id))
            return weight + _left_the_index(context, walk.id, Request.user_id == user_id).get(user_id, 0) != stake
    except LaneBusy:
        return False


def _weight(position: Position) -> int:
    return position.staked_wei + position.exiting_wei


def _stake(balance: Balance) -> int:
    return balance.staked_wei + balance.unstaking_wei


def _kept(context: PoolContext, walk: Walk, found: Iterator[Sequence[Item]]) -> Iterator[Item]:
    """The items of all pages; the walk's lease is kept meanwhile."""
    for number, page in enumerate(found, 1):
        yield from page
        if number % _PAGES_PER_LEASE == 0:
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
