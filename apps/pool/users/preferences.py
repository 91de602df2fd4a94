"""What users prefer, and who they are."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from apps.clients.shapes import users as shapes
from apps.common.database import transaction
from apps.common.wire import new_id
from apps.pool.context import PoolContext
from apps.pool.users.holds import held_actions
from apps.pool.users.models import UserPreference


class Users:
    """Owns the transactions of the endpoints about users."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context

    def list(self, query: shapes.UsersQuery) -> shapes.UserPage:
        """The users whom the ledger knows, with what they have and what they are kept from."""
        pool_id = query.pool_id or self._context.settings.pool_id
        page = self._context.ledger.balances(pool_id, query.after, query.limit, query.prefix)
        with transaction(self._context.sessions) as session:
            held = held_actions(session, pool_id, [item.user_id for item in page.items])
        items = [
            shapes.User(
                pool_id,
                item.user_id,
                available_wei=item.available_wei,
                reserved_wei=item.reserved_wei,
                staked_wei=item.staked_wei,
                unstaking_wei=item.unstaking_wei,
                on_hold=held.get(item.user_id, []),
            )
            for item in page.items
        ]
        return shapes.UserPage(items, page.next)

    def preferences(self, user_id: str, pool_id: str | None) -> shapes.Preferences:
        """What a user prefers; what goes without saying for one who never said anything."""
        pool_id = pool_id or self._context.settings.pool_id
        with transaction(self._context.sessions) as session:
            row = session.get(UserPreference, (pool_id, user_id))
        if row is None:
            return shapes.Preferences(pool_id, user_id, False, None, None)
        return _shown(row)

    def prefer(self, user_id: str, wanted: shapes.NewPreferences) -> shapes.Preferences:
        """Keep what a user prefers now. The first automatic claim comes one interval later; saying the same again changes
        nothing."""
        pool_id = wanted.pool_id or self._context.settings.pool_id
        wait = timedelta(seconds=self._context.settings.auto_claim_interval_sec)
        due = func.now() + wait if wanted.auto_claim_rewards else None
        statement = insert(UserPreference).values(
            pool_id=pool_id,
            user_id=user_id,
            id=new_id(),
            auto_claim_rewards=wanted.auto_claim_rewards,
            next_auto_claim_at=due,
        )
        changed = statement.on_conflict_do_update(
            index_elements=["pool_id", "user_id"],
            set_={
                "auto_claim_rewards": wanted.auto_claim_rewards,
                "next_auto_claim_at": due,
                "updated_at": func.clock_timestamp(),
            },
            where=UserPreference.auto_claim_rewards != wanted.auto_claim_rewards,
        )
        with transaction(self._context.sessions) as session:
            session.execute(changed)
            row = session.scalars(
                select(UserPreference).where(UserPreference.pool_id == pool_id, UserPreference.user_id == user_id)
            ).one()
        return _shown(row)


def _shown(row: UserPreference) -> shapes.Preferences:
    return shapes.Preferences(row.pool_id, row.user_id, row.auto_claim_rewards, row.next_auto_claim_at, row.updated_at)
