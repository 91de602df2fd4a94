"""Deposits by their transactions: what arrived in custody becomes a user's, once for each hash."""

from sqlalchemy.dialects.postgresql import insert

from apps.clients.shapes import pool as shapes
from apps.clients.shapes.payouts import NewDeposit, Transfer, UnidentifiedDeposits, UnidentifiedQuery
from apps.common.database import transaction
from apps.common.errors import NotConfigured
from apps.pool import effects
from apps.pool.answers import Answers
from apps.pool.context import PoolContext
from apps.pool.errors import DepositNotFinal, DepositPosted, NotADeposit
from apps.pool.models import Deposit, Request
from apps.pool.opening import begun, open_within
from apps.pool.states import RequestKind


class Deposits:
    """Owns the transactions of the deposit endpoints."""

    def __init__(self, context: PoolContext, answers: Answers) -> None:
        self.context = context
        self.answers = answers

    def create(self, message_id: str, wanted: NewDeposit) -> tuple[shapes.Request, bool]:
        """Book a transaction's ETH for a user; returns the request and whether this was a replay.

        The chain is asked first: the transaction is at or below the money horizon, succeeded, and moved its ETH to custody.
        Raises `DepositNotFinal`, `NotADeposit`, `DepositPosted`, `MessageIdReused`.
        """
        pool_id = self.answers.reads.pool_of(wanted.pool_id)
        canonical = {
            "kind": RequestKind.DEPOSIT.value,
            "user_id": wanted.user_id,
            "pool_id": pool_id,
            "tx_hash": wanted.tx_hash,
        }
        known = self.answers.known(message_id, canonical)
        if known is not None:
            return known, True
        found = self.context.protocols.transfer(wanted.tx_hash)
        if found is None or not found.final:
            raise DepositNotFinal
        self._check(found)
        row = Request(
            message_id=message_id,
            body=canonical,
            kind=RequestKind.DEPOSIT,
            pool_id=pool_id,
            user_id=wanted.user_id,
            amount_wei=found.amount_wei,
            **begun(RequestKind.DEPOSIT),
        )
        with transaction(self.context.sessions) as session:
            opened = open_within(session, row, self.context.settings.lease_sec)
            if opened is not None:
                mine = insert(Deposit).values(
                    request_id=row.id, tx_hash=found.tx_hash, sender=found.sender, block_number=found.block_number
                )
                taken = mine.on_conflict_do_nothing().returning(Deposit.request_id)
                if session.scalar(taken) is None:
                    raise DepositPosted("Another request books this transaction.")  # nothing of this one is kept
        if opened is None:
            return self.answers.replay(message_id, canonical), True
        return self.answers.run(opened), False

    def unidentified(self, query: UnidentifiedQuery) -> UnidentifiedDeposits:
        """What arrived in custody and no movement of the ledger names."""
        return self.context.protocols.unidentified(after=query.after, limit=query.limit)

    def _check(self, found: Transfer) -> None:
        custody = (self.context.settings.custody_address or "").lower()
        if not custody:
            raise NotConfigured("CUSTODY_ETH_ADDRESS holds no usable address.")
        ours = {custody, (self.context.settings.operator_address or "").lower()}
        if not found.success:
            raise NotADeposit(errors={"tx_hash": ["This transaction failed."]})
        if (found.to or "").lower() != custody:
            raise NotADeposit(errors={"tx_hash": [f"It went to {found.to}, and custody is {custody}."]})
        if found.sender.lower() in ours:
            raise NotADeposit(errors={"tx_hash": ["It came from the house itself."]})
        if found.amount_wei == 0:
            raise NotADeposit(errors={"tx_hash": ["It brought no ETH of its own."]})
        if found.posted_as is not None and found.posted_as != effects.deposit(found.tx_hash):
            raise DepositPosted(f"The ledger's movement {found.posted_as} names this transaction.")
