"""What ops say about a parked payout: that it had no effect, or which transaction of the house has paid it.

A second person confirms it where that is asked for; the payout then does what was decided (`apps.pool.flows.payout.decided`).
"""

from sqlalchemy import select

from apps.clients.shapes.payouts import NewPaid
from apps.clients.shapes.relayer import Transaction
from apps.clients.shapes.walk import NewRelease, Resolution
from apps.common.database import transaction
from apps.common.errors import NotFound
from apps.pool import effects
from apps.pool.errors import PayoutNotMatching
from apps.pool.flows.payout import CONFIRM_PAYOUT, DONE_ELSEWHERE, RELEASE_PAYOUT, is_ours
from apps.pool.models import Payout, PayoutTransaction, Request
from apps.pool.models import Resolution as ResolutionRow
from apps.pool.states import RequestStatus, ResolutionStatus, TransactionStatus
from apps.pool.walk.resolutions import Resolutions
from apps.pool.walk.said import canonical_of


class PayoutResolutions(Resolutions):
    """Owns the transactions of a parked payout's ways out. Both raise `PayoutNotMatching` where it is not parked, or what is
    said is not so."""

    def release(self, request_id: str, said: NewRelease) -> tuple[Resolution, bool]:
        """Say that a payout did nothing on chain and never will: its user gets the ETH back."""
        canonical = canonical_of(said, request_id=request_id, action=RELEASE_PAYOUT)
        known = self.known(said.message_id, canonical)
        if known is not None:
            return known, True
        payout, transfer = self._parked_payout(request_id)
        if transfer is not None:
            sent = self._sent(transfer)
            if is_ours(transfer, sent) and sent.reason is not None and sent.reason.code == DONE_ELSEWHERE:
                raise PayoutNotMatching(f"Another transaction did what it asks for; confirm that. {sent.reason.detail}")
        values = dict[str, object](
            pool_id=payout.pool_id, action=RELEASE_PAYOUT, halt=None, effect=effects.payout_send(request_id)
        )
        return self.insert(values, said, canonical)

    def confirm(self, request_id: str, said: NewPaid) -> tuple[Resolution, bool]:
        """Say which transaction has paid a payout: one of custody's that the relayer did not send, final and of this amount to
        this address."""
        canonical = canonical_of(said, request_id=request_id, action=CONFIRM_PAYOUT)
        known = self.known(said.message_id, canonical)
        if known is not None:
            return known, True
        payout, transfer = self._parked_payout(request_id)
        if transfer is None:
            raise PayoutNotMatching("It never asked for a transfer.")
        self._sent(transfer)
        found = self.context.protocols.transfer(said.tx_hash)
        if found is None or not (found.final and found.success):
            raise PayoutNotMatching("No block at or below the money horizon shows this transaction to have succeeded.")
        asked = transfer.from_address.lower(), transfer.to_address, transfer.value_wei
        if (found.sender.lower(), found.to, found.amount_wei) != asked:
            raise PayoutNotMatching(f"It moved {found.amount_wei} wei from {found.sender} to {found.to}.")
        with transaction(self.context.sessions) as session:
            others = select(PayoutTransaction.message_id).where(PayoutTransaction.tx_hash == said.tx_hash)
            said_of = select(ResolutionRow.id).where(
                ResolutionRow.tx_hash == said.tx_hash,
                ResolutionRow.action == CONFIRM_PAYOUT,
                ResolutionRow.status != ResolutionStatus.REJECTED,
                ResolutionRow.message_id != said.message_id,
            )
            taken = session.scalar(others.limit(1)) or session.scalar(said_of.limit(1))
        if taken is not None:
            raise PayoutNotMatching("This transaction is another payout's.")
        values = dict[str, object](
            pool_id=payout.pool_id,
            action=CONFIRM_PAYOUT,
            halt=None,
            effect=transfer.message_id,
            tx_hash=said.tx_hash,
            gas_cost_wei=said.gas_cost_wei,
        )
        return self.insert(values, said, canonical)

    def _parked_payout(self, request_id: str) -> tuple[Payout, PayoutTransaction | None]:
        with transaction(self.context.sessions) as session:
            payout, row = session.get(Payout, request_id), session.get(Request, request_id)
            transfer = session.scalars(
                select(PayoutTransaction).where(PayoutTransaction.request_id == request_id)
            ).one_or_none()
        if payout is None or row is None:
            raise NotFound("There is no payout with this id.")
        if row.status != RequestStatus.NEEDS_ATTENTION:
            raise PayoutNotMatching(f"The payout is {row.status}; only a parked one can be decided about.")
        if row.parked_status == RequestStatus.RESERVING:
            raise PayoutNotMatching("Whether its ETH was set aside is not known; retry it, which finds out.")
        return payout, transfer

    def _sent(self, transfer: PayoutTransaction) -> Transaction:
        """The relayer's word on the transfer, which must be the conflict that ops are asked about, or be about another transfer:
        everything else it settles itself, or may still."""
        sent = self.context.relayer.transaction(transfer.message_id)
        if sent is None or (sent.status != TransactionStatus.CONFLICT and is_ours(transfer, sent)):
            word = "unknown to the relayer" if sent is None else f"{sent.status} at the relayer"
            raise PayoutNotMatching(f"{transfer.message_id} is {word}; retry the payout.")
        return sent
