"""The caps on 24 hours: on the value that leaves custody and operator, on what of it leaves the house as payouts, and on what
gas costs; over all signers together.

A message that would pass a cap waits until enough of the spending is more than 24 hours old; it is not refused.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.orm import Session

from relayer.context import RelayerContext
from relayer.signing.policy import Proposal, is_internal, is_payout
from relayer.store.models import Attempt, Message
from relayer.store.states import WITHOUT_EFFECT

VALUE_CAP, PAYOUT_CAP = "MAX_VALUE_PER_DAY_WEI", "MAX_PAYOUT_PER_DAY_WEI"


@dataclass
class CapsLeft:
    """Wei that the caps still allow, read without the lock: for choosing what to sign. Before signatures are stored,
    `SpendingSums` checks again under the lock."""

    value_wei: int
    gas_wei: int
    payout_wei: int

    def cap_on(self, context: RelayerContext, proposal: Proposal) -> str | None:
        """The name of the cap that leaves no room for this value now; None where there is room."""
        if is_internal(context.rules, proposal):
            return None
        if proposal.value_wei > self.value_wei:
            return VALUE_CAP
        return PAYOUT_CAP if is_payout(context.rules, proposal) and proposal.value_wei > self.payout_wei else None

    def take(self, context: RelayerContext, proposal: Proposal, gas_wei: int) -> None:
        self.gas_wei -= gas_wei
        if not is_internal(context.rules, proposal):
            self.value_wei -= proposal.value_wei
        if is_payout(context.rules, proposal):
            self.payout_wei -= proposal.value_wei

    def hold(self, cap: str) -> None:
        """Leave nothing of a cap to those behind: else smaller ones could use up what becomes free, again and again."""
        if cap == VALUE_CAP:
            self.value_wei = 0
        else:
            self.payout_wei = 0


def caps_left(session: Session, context: RelayerContext) -> CapsLeft:
    """What the caps allow now; never below zero."""
    settings = context.settings
    sums = SpendingSums(session, context, lock=False)
    return CapsLeft(
        max(0, settings.max_value_per_day_wei - sums.value_wei()),
        max(0, settings.max_gas_per_day_wei - sums.gas_wei()),
        max(0, settings.max_payout_per_day_wei - sums.payout_wei()),
    )


class SpendingSums:
    """The sums of the last 24 hours, under a lock that the transaction holds until its end; what is added counts from then on.

    A sum is read when it is first asked for. Gas counts as limit times the highest fee cap signed, until the receipt
    tells what it cost.
    """

    def __init__(self, session: Session, context: RelayerContext, *, lock: bool = True) -> None:
        self._session = session
        self._context = context
        self._value_wei: int | None = None
        self._gas_wei: int | None = None
        self._payout_wei: int | None = None
        if lock:  # the name is that of earlier releases, whose workers may run beside this one
            session.execute(text("SELECT pg_advisory_xact_lock(hashtext('relayer_daily_sums'))"))

    def add_value(self, proposal: Proposal) -> str | None:
        """Count this value too, where the caps allow it; else the name of the one that does not. Moves between custody and
        operator are free."""
        if is_internal(self._context.rules, proposal):
            return None
        after = self.value_wei() + proposal.value_wei
        if after > self._context.settings.max_value_per_day_wei:
            return VALUE_CAP
        if is_payout(self._context.rules, proposal):
            paid = self.payout_wei() + proposal.value_wei
            if paid > self._context.settings.max_payout_per_day_wei:
                return PAYOUT_CAP
            self._payout_wei = paid
        self._value_wei = after
        return None

    def add_gas(self, more_wei: int) -> bool:
        """Count this much gas too, and return True, where the cap allows it."""
        after = self.gas_wei() + more_wei
        if after > self._context.settings.max_gas_per_day_wei:
            return False
        self._gas_wei = after
        return True

    def value_wei(self) -> int:
        if self._value_wei is None:
            self._value_wei = self._value()
        return self._value_wei

    def gas_wei(self) -> int:
        if self._gas_wei is None:
            self._gas_wei = self._gas()
        return self._gas_wei

    def payout_wei(self) -> int:
        if self._payout_wei is None:
            self._payout_wei = self._value(func.octet_length(Message.data) == 0)
        return self._payout_wei

    def _value(self, *which: ColumnElement[bool]) -> int:
        settings = self._context.settings
        ours = [str(value).lower() for value in (settings.custody_address, settings.operator_address) if value]
        found = self._session.scalar(
            select(func.coalesce(func.sum(Message.value_wei), 0)).where(
                self._lately(),
                Message.status.not_in(WITHOUT_EFFECT),
                func.lower(Message.to_address).not_in(ours),
                *which,
            )
        )
        return int(found or 0)

    def _gas(self) -> int:
        highest = (
            select(func.max(Attempt.max_fee_per_gas_wei) * func.max(Attempt.gas_limit))
            .where(
                Attempt.chain_id == Message.chain_id,
                Attempt.address == Message.from_address,
                Attempt.nonce == Message.nonce,
            )
            .correlate(Message)
            .scalar_subquery()
        )
        cost = func.coalesce(Message.gas_cost_wei, highest, 0)
        found = self._session.scalar(select(func.coalesce(func.sum(cost), 0)).where(self._lately()))
        return int(found or 0)

    def _lately(self) -> ColumnElement[bool]:
        recent = Message.signed_at > func.now() - text("interval '24 hours'")
        return (Message.chain_id == self._context.settings.chain_id) & recent
