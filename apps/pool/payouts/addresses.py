"""The addresses that a user may be paid at: added by the company, usable after a delay, removed at once.

The delay is what stands between a stolen key of the company and the users' ETH: an address that a thief adds cannot be paid
before somebody has had the time to see it.
"""

from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from apps.clients.shapes import payouts as shapes
from apps.common.database import transaction
from apps.common.errors import NotFound
from apps.common.idempotency import differing_fields, raise_reused
from apps.common.wire import cut, new_id
from apps.pool.context import PoolContext
from apps.pool.errors import AddressAllowedAlready, PayoutTargetRefused
from apps.pool.models import PayoutAddress


class PayoutAddresses:
    """Owns the transactions of the address lists."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context

    def add(self, user_id: str, new: shapes.NewPayoutAddress) -> tuple[shapes.PayoutAddress, bool]:
        """Allow an address; returns it and whether this is a replay.

        Raises `PayoutTargetRefused` for a contract and for what no user can be paid at, `AddressAllowedAlready`, and what
        protocols' client raises where the chain cannot be asked.
        """
        body = {"user_id": user_id, "address": new.address, "label": new.label}
        known = self._known(new.message_id, body)
        if known is not None:
            return known, True
        self._check_payee(new.address)
        delay = timedelta(seconds=self.context.settings.payout_address_delay_sec)
        row = insert(PayoutAddress).values(
            id=new_id(),
            message_id=new.message_id,
            body=body,
            user_id=user_id,
            address=new.address,
            label=new.label,
            usable_at=func.now() + delay,
        )
        with transaction(self.context.sessions) as session:
            added = session.scalars(row.on_conflict_do_nothing().returning(PayoutAddress)).one_or_none()
            if added is not None:
                return _shown(added), False
        known = self._known(new.message_id, body)
        if known is None:
            raise AddressAllowedAlready
        return known, True

    def remove(self, user_id: str, address_id: str) -> shapes.PayoutAddress:
        """Take an address off the list; a payout that was not handed to the relayer yet does not go there any more. Again is
        harmless."""
        mine = PayoutAddress.id == address_id, PayoutAddress.user_id == user_id
        with transaction(self.context.sessions) as session:
            session.execute(
                update(PayoutAddress)
                .where(*mine, PayoutAddress.removed_at.is_(None))
                .values(removed_at=func.clock_timestamp()),
                execution_options={"synchronize_session": False},
            )
            row = session.scalars(select(PayoutAddress).where(*mine)).one_or_none()
            if row is None:
                raise NotFound("The user has no address with this id.")
            return _shown(row)

    def page(self, user_id: str, query: shapes.PayoutAddressesQuery) -> shapes.PayoutAddressPage:
        """A user's addresses, newest first, removed ones too."""
        wanted = select(PayoutAddress).where(PayoutAddress.user_id == user_id).order_by(PayoutAddress.id.desc())
        if query.after is not None:
            wanted = wanted.where(PayoutAddress.id < query.after)
        with transaction(self.context.sessions) as session:
            rows = [_shown(row) for row in session.scalars(wanted.limit(query.limit + 1))]
        return shapes.PayoutAddressPage(*cut(rows, query.limit, lambda item: item.id))

    def _check_payee(self, address: str) -> None:
        account = self.context.protocols.account(address)
        if account.refused is not None:
            raise PayoutTargetRefused(errors={"address": [f"{address} is {account.refused}."]})
        if account.kind == shapes.AccountKind.CONTRACT:
            raise PayoutTargetRefused(errors={"address": [f"{address} is a contract; name an account with a key."]})

    def _known(self, message_id: str, body: dict[str, str | None]) -> shapes.PayoutAddress | None:
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(PayoutAddress).where(PayoutAddress.message_id == message_id)).one_or_none()
            if row is None:
                return None
            fields = differing_fields(body, row.body)
            if fields:
                raise_reused(fields)
            return _shown(row)


def _shown(row: PayoutAddress) -> shapes.PayoutAddress:
    return shapes.PayoutAddress(
        id=row.id,
        message_id=row.message_id,
        user_id=row.user_id,
        address=row.address,
        label=row.label,
        usable_at=row.usable_at,
        removed_at=row.removed_at,
        created_at=row.created_at,
    )
