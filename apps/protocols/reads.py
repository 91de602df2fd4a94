"""What protocols reads: of the chain, of the history that is stored of it, and of what was written down."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import select

from apps.clients.shapes.common import IdPageQuery
from apps.clients.shapes.history import Apr, HistoryQuery, Rebase, RebaseItem, RebasePage, RebasesQuery, RescanPage
from apps.clients.shapes.history import History as HistoryPage
from apps.clients.shapes.protocols import LidoBlock, LidoReceipt, LidoState, WithdrawalStatuses
from apps.clients.shapes.reconciliation import ReconciliationPage, ReconciliationsQuery
from apps.common.database import Sessions, transaction
from apps.common.wire import cut
from apps.ethereum.endpoints import ChainUnavailable
from apps.protocols.apr import apr_of
from apps.protocols.chain import Chain
from apps.protocols.errors import ChainReorganized
from apps.protocols.history import History, parse_cursor
from apps.protocols.models import ReconciliationRun, Rescan
from apps.protocols.rendering import shown_reconciliation, shown_rescan
from apps.protocols.state import block_time, read_state
from apps.protocols.withdrawals import read_receipt, read_statuses

T = TypeVar("T")

WEEK_SEC = 7 * 86_400
REBASES_OF_A_WEEK = 200  # seven on mainnet; a testnet's frame of 77 minutes makes 131
LAST_LOG = 2**31 - 1


class ProtocolsReads:
    """Answers that change nothing but how far the history is read."""

    def __init__(self, chain: Chain, history: History, sessions: Sessions) -> None:
        self._chain = chain
        self._history = history
        self._sessions = sessions

    def block(self, number: int) -> LidoBlock:
        """A block's hash and time, as `state` shows them."""
        found = self._as_read(number, lambda wanted: self._chain.block(number, wanted))
        return LidoBlock(block_number=found.number, block_hash=found.hash, block_time=block_time(found.timestamp))

    def state(self, number: int | None) -> LidoState:
        """Lido's state, the latest where no block is named. A block that was read is shown as it was read: by a node that
        has it as that, until the history itself has found that the chain has another."""
        return self._as_read(number, lambda wanted: read_state(self._chain, number, wanted))

    def receipt(self, tx_hash: str) -> LidoReceipt:
        """`NotFound` when no node has it in a block that is the chain's as far as is known."""
        return read_receipt(self._chain, tx_hash, self._history.known_hash)

    def statuses(self, ids: Sequence[int]) -> WithdrawalStatuses:
        """Status of up to 1,000 withdrawals; `WithdrawalUnknown` names those that do not exist."""
        found = read_statuses(self._chain, ids, self._chain.block())
        return WithdrawalStatuses(items=[one.status for one in found])

    def history(self, query: HistoryQuery) -> HistoryPage:
        """Items after the cursor, up to the money horizon."""
        return self._history.page(parse_cursor(query.after), query.limit)

    def rebases(self, query: RebasesQuery) -> RebasePage:
        """The history's rebases after a block, or after the cursor of the page before."""
        place = (query.after_block, LAST_LOG) if query.after is None else parse_cursor(query.after)
        found = self._history.page(place, query.limit, kinds=("rebase",))
        items = [
            RebaseItem(**vars(item.rebase), kind=item.kind, shares=None, amount_wei=None, rebase=item.rebase)
            for item in found.items
            if item.rebase is not None
        ]
        return RebasePage(items=items, next=found.next)

    def apr(self) -> Apr:
        """The rate of the last rebase, and over the rebases of the last seven days."""
        rebases = self._history.last_rebases(REBASES_OF_A_WEEK)
        week: list[Rebase] = []
        elapsed = 0
        for rebase in reversed(rebases):
            week.insert(0, rebase)
            elapsed += rebase.time_elapsed_sec
            if elapsed >= WEEK_SEC:
                break
        return Apr(last=apr_of(rebases[-1:]), seven_day=apr_of(week))

    def rescans(self, query: IdPageQuery) -> RescanPage:
        """What was rescanned, newest first."""
        wanted = select(Rescan).order_by(Rescan.id.desc()).limit(query.limit + 1)
        if query.after is not None:
            wanted = wanted.where(Rescan.id < query.after)
        with transaction(self._sessions) as session:
            rows = session.scalars(wanted).all()
        items, following = cut(rows, query.limit, lambda row: row.id)
        return RescanPage(items=[shown_rescan(row) for row in items], next=following)

    def reconciliations(self, query: ReconciliationsQuery) -> ReconciliationPage:
        """Runs, newest first."""
        wanted = select(ReconciliationRun).order_by(ReconciliationRun.id.desc()).limit(query.limit + 1)
        if query.after is not None:
            wanted = wanted.where(ReconciliationRun.id < query.after)
        if query.verdict is not None:
            wanted = wanted.where(ReconciliationRun.verdict == query.verdict)
        with transaction(self._sessions) as session:
            rows = session.scalars(wanted).all()
        items, following = cut(rows, query.limit, lambda row: row.id)
        return ReconciliationPage(items=[shown_reconciliation(row) for row in items], next=following)

    def _as_read(self, number: int | None, read: Callable[[str | None], T]) -> T:
        """What is read of a block, given the hash it was read with before, if it was."""
        wanted = None if number is None else self._history.known_hash(number)
        try:
            return read(wanted)
        except ChainUnavailable:
            if wanted is None:
                raise
            try:
                self._history.scan()
            except ChainReorganized:
                return read(None)
            raise
