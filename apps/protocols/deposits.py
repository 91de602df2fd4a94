"""What came to custody and is not posted: arrivals against the movements of the ledger that name their transactions.

The rule: a movement of kind `deposit` or `gas_float` whose `reference` or `message_id` holds a transaction's hash has posted that
transaction; one that was reversed has not.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.ledger import LedgerClient
from apps.clients.shapes.ledger import Movement
from apps.clients.shapes.payouts import (
    Remainder,
    Transfer,
    UnidentifiedDeposit,
    UnidentifiedDeposits,
    UnidentifiedQuery,
)
from apps.common.database import Sessions, transaction
from apps.common.errors import NotFound, Unavailable
from apps.common.wei import exact_int
from apps.common.wire import TX_HASH, cut
from apps.ethereum.addresses import checksummed
from apps.ethereum.endpoints import Absent
from apps.ethereum.jsonrpc import Endpoint
from apps.ethereum.logs import integer
from apps.protocols.arrivals import Arrivals, mark_posted
from apps.protocols.calls import Call, well_formed
from apps.protocols.chain import ASK_BEHIND, Chain
from apps.protocols.history import parse_cursor
from apps.protocols.models import Arrival, ArrivalCursor, PostedDeposit, ReconciliationRun
from apps.protocols.state import block_time

# In this order: a reversal comes after what it reverses.
KINDS = ("deposit", "gas_float", "reversal")
MOVEMENTS_PER_CALL = 200
READ_BUDGET_SEC = 1.5
_HASHES = re.compile(rf"(?<![0-9a-fA-F]){TX_HASH.pattern}(?![0-9a-fA-F])", re.ASCII)


class DepositReads:
    """Answers about arrivals; what they change is how far chain and ledger were read."""

    def __init__(self, chain: Chain, sessions: Sessions, ledger: LedgerClient, pool_id: str) -> None:
        self._chain = chain
        self._sessions = sessions
        self._ledger = ledger
        self._pool_id = pool_id
        self._arrivals = Arrivals(chain, sessions)

    def unidentified(self, query: UnidentifiedQuery) -> UnidentifiedDeposits:
        """Arrivals that no movement names, oldest first. Raises what the clients of chain and ledger raise."""
        scanned, horizon = self._arrivals.scan()
        read_all = self._read_movements()
        place = tuple_(Arrival.block_number, Arrival.transaction_index)
        open_ = Arrival.posted_at.is_(None), Arrival.sender != self._chain.operator
        wanted = select(Arrival).where(*open_, place > parse_cursor(query.after)).order_by(place)
        with transaction(self._sessions) as session:
            rows = session.scalars(wanted.limit(query.limit + 1)).all()
            listed = exact_int(session.scalar(select(func.coalesce(func.sum(Arrival.amount_wei), 0)).where(*open_)))
        shown, following = cut(rows, query.limit, lambda row: f"{row.block_number}:{row.transaction_index}")
        return UnidentifiedDeposits(
            items=[
                UnidentifiedDeposit(
                    block_number=row.block_number,
                    block_hash=row.block_hash,
                    tx_hash=row.tx_hash,
                    sender=row.sender,
                    amount_wei=row.amount_wei,
                )
                for row in shown
            ],
            next=following,
            scanned_block=scanned,
            horizon_block=horizon,
            complete=read_all and scanned >= horizon,
            listed_wei=listed,
            remainder=self._remainder(scanned),
        )

    def transfer(self, tx_hash: str) -> Transfer:
        """A transaction's transfer of ETH, and the movement that posted it. `NotFound` where no node has it in a block;
        `Unavailable` while the ledger's movements are not all read: what they post would be posted twice."""
        horizon = self._chain.horizon()
        sent, receipt = self._chain.endpoints.first(
            lambda endpoint: well_formed(lambda one: self._look(one, tx_hash), endpoint)
        )
        number = integer(receipt["blockNumber"])
        final = number <= horizon and self._chain.block(number).hash == receipt["blockHash"]
        if not self._read_movements():
            raise Unavailable("The ledger's deposits are being read; ask again in a moment.")
        with transaction(self._sessions) as session:
            posted = session.scalar(select(PostedDeposit.message_id).where(PostedDeposit.tx_hash == tx_hash))
        return Transfer(
            tx_hash=tx_hash,
            block_number=number,
            block_hash=str(receipt["blockHash"]),
            sender=checksummed(sent["from"]),
            to=None if sent["to"] is None else checksummed(sent["to"]),
            amount_wei=integer(sent["value"]),
            success=integer(receipt["status"]) == 1,
            final=final,
            posted_as=posted,
        )

    def _look(self, endpoint: Endpoint, tx_hash: str) -> tuple[Any, Any]:
        for _ in range(ASK_BEHIND):
            asked = [Call(f"eth_getTransaction{what}", [tx_hash]) for what in ("ByHash", "Receipt")]
            sent, receipt = self._chain.ask(endpoint, asked)
            if sent is not None and receipt is not None and sent["blockHash"] == receipt["blockHash"]:
                return sent, receipt
        raise Absent("The chain has no receipt of this transaction.")

    def _remainder(self, scanned: int) -> Remainder | None:
        """The newest reconciliation's surplus against what was listed at its block."""
        with transaction(self._sessions) as session:
            newest = select(ReconciliationRun).where(ReconciliationRun.block_number.is_not(None))
            run = session.scalars(newest.order_by(ReconciliationRun.id.desc()).limit(1)).one_or_none()
        if run is None or run.block_number is None or run.block_number > scanned:
            return None
        try:
            at = block_time(self._chain.block(run.block_number).timestamp)
        except NotFound:
            return None
        surplus = next(line.found_wei for line in run.lines if line.name == "unidentified")
        # As reconciliation counts: what was posted after the block was not posted at it.
        unposted = or_(Arrival.posted_at.is_(None), Arrival.posted_at > at)
        at_block = Arrival.block_number <= run.block_number, Arrival.sender != self._chain.operator
        with transaction(self._sessions) as session:
            total = select(func.coalesce(func.sum(Arrival.amount_wei), 0)).where(*at_block, unposted)
            listed = exact_int(session.scalar(total))
        return Remainder(run.block_number, surplus, listed, surplus - listed)

    def _read_movements(self) -> bool:
        """Read what is new among the movements that may name a transaction; whether that was all."""
        give_up = time.monotonic() + READ_BUDGET_SEC
        for kind in KINDS:
            while self._read_page(kind):
                if time.monotonic() > give_up:
                    return False
        return True

    def _read_page(self, kind: str) -> bool:
        """Whether there is another page behind this one."""
        with transaction(self._sessions) as session:
            cursor = session.scalars(select(ArrivalCursor)).one_or_none()
        if cursor is None:
            self._arrivals.scan()
            return True
        after = cursor.movements.get(kind)
        page = self._ledger.movements(pool_id=self._pool_id, kind=kind, limit=MOVEMENTS_PER_CALL, after=after)
        if not page.items:
            return False
        with transaction(self._sessions) as session:
            cursor = session.scalars(select(ArrivalCursor).with_for_update()).one()
            if cursor.movements.get(kind) != after:
                return True  # another reader has stored this page
            _store(session, kind, page.items)
            cursor.movements = {**cursor.movements, kind: str(page.items[-1].id)}
        return page.next is not None


def hashes_in(*texts: str | None) -> set[str]:
    """The transactions' hashes that a movement's texts hold."""
    return {found.lower() for text in texts if text for found in _HASHES.findall(text)}


def _store(session: Session, kind: str, items: Sequence[Movement]) -> None:
    if kind == "reversal":
        reversed_ = PostedDeposit.message_id.in_([item.reference for item in items])
        changed = session.scalars(delete(PostedDeposit).where(reversed_).returning(PostedDeposit.tx_hash)).all()
    else:
        rows = [
            {"tx_hash": tx_hash, "message_id": item.message_id, "posted_at": item.created_at}
            for item in items
            for tx_hash in sorted(hashes_in(item.reference, item.message_id))
        ]
        if rows:
            session.execute(insert(PostedDeposit).on_conflict_do_nothing(), rows)
        changed = [str(row["tx_hash"]) for row in rows]
    if changed:
        mark_posted(session, changed)
