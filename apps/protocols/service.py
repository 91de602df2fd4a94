"""What changes protocols' own tables: reconciliations, and the repairs of the history that ops ask for."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.ledger import LedgerClient
from apps.clients.shapes.history import NewRescan, NewShareDifference
from apps.clients.shapes.reconciliation import NewReconciliation
from apps.common.database import Sessions, transaction
from apps.common.errors import ServiceError
from apps.common.idempotency import Answer, run_once
from apps.common.shapes import dump
from apps.common.wire import new_id
from apps.protocols import reconciliation, rescan
from apps.protocols.chain import Chain
from apps.protocols.history import History
from apps.protocols.models import MessageKey, ReconciliationRun
from apps.protocols.rendering import shown_difference, shown_reconciliation, shown_rescan

T = TypeVar("T")

# The body by which a message_id is known again, in text: numbers as digits, so that JSON keeps them whole.
Canonical = dict[str, str | dict[str, str] | None]


class ProtocolsService:
    """Owns the transactions. Each effect happens once per message_id; everything that the chain or the ledger must tell
    is read before the transaction opens, and not at all for a message_id that is known."""

    def __init__(self, chain: Chain, history: History, sessions: Sessions, ledger: LedgerClient, pool_id: str) -> None:
        self.chain = chain
        self.history = history
        self.sessions = sessions
        self.ledger = ledger
        self.pool_id = pool_id

    def reconcile(self, new: NewReconciliation) -> Answer:
        """Compare books and chain; answers with a `Reconciliation`."""
        rewards = new.rewards
        request: Canonical = {
            "block": _digits(new.block),
            "rewards": None if rewards is None else {name: str(value) for name, value in sorted(vars(rewards).items())},
        }

        def work(session: Session, facts: reconciliation.Facts) -> object:
            lines = reconciliation.judge(facts, rewards)
            # The latest one is what ops are shown and alarmed by, so its id comes after all others.
            row = ReconciliationRun(
                id=new_id(session.scalar(select(func.max(ReconciliationRun.id)))),
                message_id=new.message_id,
                block_number=facts.block.number,
                block_hash=facts.block.hash,
                verdict="ok" if all(line.ok for line in lines) else "drift",
                lines=lines,
            )
            session.add(row)
            session.flush()
            session.refresh(row)
            return shown_reconciliation(row)

        def gather() -> reconciliation.Facts:
            return reconciliation.gather(self.chain, self.history, self.ledger, self.sessions, self.pool_id, new.block)

        return self._once(new.message_id, "reconciliations", request, gather, work)

    def rescan(self, new: NewRescan) -> Answer:
        """Read a part of the history again and mend what is stored of it; answers with a `Rescan`."""
        request: Canonical = {
            "from_block": str(new.from_block),
            "to_block": _digits(new.to_block),
            "reason": new.reason,
            "requested_by": new.requested_by,
        }
        return self._once(
            new.message_id,
            "rescan",
            request,
            lambda: rescan.gather(self.history, new.from_block, new.to_block),
            lambda session, found: shown_rescan(rescan.replace(session, found, new)),
        )

    def accept_difference(self, new: NewShareDifference) -> Answer:
        """Take it that shares came or went in a block without a log, only where the chain shows just that; answers with a
        `ShareDifference`. A block has one at most."""
        request: Canonical = {
            "block_number": str(new.block_number),
            "shares": str(new.shares),
            "reason": new.reason,
            "requested_by": new.requested_by,
        }
        return self._once(
            new.message_id,
            "share-differences",
            request,
            lambda: rescan.check_difference(self.history, new.block_number, new.shares),
            lambda session, _: shown_difference(rescan.add_difference(session, new)),
        )

    def _once(
        self,
        message_id: str,
        endpoint: str,
        request: Canonical,
        gather: Callable[[], T],
        work: Callable[[Session, T], object],
    ) -> Answer:
        gathered: list[T] = []
        if not self._known(message_id):
            try:
                gathered.append(gather())
            except ServiceError:
                # A twin may have been first meanwhile: what it did can no longer be done, and this call is its replay.
                if not self._known(message_id):
                    raise
        return run_once(
            self.sessions,
            MessageKey,
            message_id=message_id,
            endpoint=endpoint,
            request=request,
            work=lambda session: dump(work(session, gathered[0])),  # not called for a message_id that is known
        )

    def _known(self, message_id: str) -> bool:
        with transaction(self.sessions) as session:
            return session.get(MessageKey, message_id) is not None


def _digits(number: int | None) -> str | None:
    return None if number is None else str(number)
