"""User lanes: one money step per (pool, user) at a time, the members of a batch included."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from apps.flow.lanes import lanes
from apps.pool.context import PoolContext
from apps.pool.models import UserLane


def user_lanes(
    context: PoolContext, pool_id: str, user_ids: Iterable[str]
) -> AbstractContextManager[Callable[[], None]]:
    """Hold the lanes of all users for the block, or raise `LaneBusy` holding none.

    The block gets a function that holds them for another lease, for a step of many calls.
    """
    return lanes(context.sessions, UserLane, pool_id, user_ids, context.settings.lease_sec)
