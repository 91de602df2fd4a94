"""Rewards claimed by themselves, for users who prefer it.

A claim is an ordinary request, under a name that counts the user's automatic claims: whoever makes it, worker or its twin,
makes it once. The count goes up after the request is there, so that a worker that dies in between makes the same one again.
"""

from datetime import timedelta

import structlog
from sqlalchemy import func, select, update

from apps.clients.base import CallRefused
from apps.clients.shapes.pool import NewRewardClaim
from apps.common.database import transaction
from apps.common.errors import ServiceError
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.errors import UserOnHold
from apps.pool.service import PoolService
from apps.pool.states import RequestKind
from apps.pool.users.models import UserPreference

log = structlog.get_logger(__name__)

# One message claims for so many; the sweep of the next beat goes on with the rest.
AT_ONCE = 200
# A user whose claim met an outage is tried again after this, so that others come first.
AGAIN_SEC = 300.0


def claim_due(context: PoolContext) -> int:
    """Claim for users whose claim is due, the longest due first; returns how many requests were made.

    Nothing is claimed below `AUTO_CLAIM_MIN_WEI`, nor a loss, nor for a user on hold: those come again one interval later.
    """
    service = PoolService(context)
    return sum(_claim(context, service, row) for row in _due(context))


def _due(context: PoolContext) -> list[UserPreference]:
    wanted = (
        select(UserPreference)
        .where(UserPreference.next_auto_claim_at <= func.now())
        .order_by(UserPreference.next_auto_claim_at)
        .limit(AT_ONCE)
    )
    with transaction(context.sessions) as session:
        return list(session.scalars(wanted))


def _claim(context: PoolContext, service: PoolService, row: UserPreference) -> bool:
    message_id = effects.auto_claim(row.id, row.auto_claims + 1)
    made = False
    wait_sec = context.settings.auto_claim_interval_sec
    try:
        pending_wei = context.rewards.position(row.pool_id, row.user_id).pending_wei
        if pending_wei >= max(1, context.settings.auto_claim_min_wei):
            wanted = NewRewardClaim(user_id=row.user_id, pool_id=row.pool_id)
            service.create(RequestKind.REWARD_CLAIM, message_id, wanted)
            made = True
    except UserOnHold:
        log.info("auto_claim_skipped", user_preference=row.id, why="user_on_hold")
    # Whatever it is, it is this user's alone: the others go on.
    except (CallRefused, ServiceError) as error:
        log.warning("auto_claim_waits", user_preference=row.id, why=str(error))
        wait_sec = AGAIN_SEC
    _put_off(context, row, wait_sec, made=made)
    return made


def _put_off(context: PoolContext, row: UserPreference, wait_sec: float, *, made: bool) -> None:
    """The next claim of a user; nothing where a twin has put it off already, or the user prefers otherwise by now."""
    with transaction(context.sessions) as session:
        session.execute(
            update(UserPreference)
            .where(
                UserPreference.id == row.id,
                UserPreference.auto_claims == row.auto_claims,
                UserPreference.next_auto_claim_at == row.next_auto_claim_at,
            )
            .values(
                auto_claims=row.auto_claims + made,
                next_auto_claim_at=func.now() + timedelta(seconds=wait_sec),
            ),
            execution_options={"synchronize_session": False},
        )
