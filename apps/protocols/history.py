"""The operator's share history in chain order, up to the money horizon: read by ranges, proved, stored, classified.

Every share that enters or leaves the operator is an item: `submit`, `request`, `foreign_in`, `foreign_out`; so are each
`claim` of its withdrawals and each `rebase` with the operator's shares just before it. What is stored is proved
(`apps.protocols.proof`). Where nodes contradict it, that is a doubt first. It becomes a verdict, which callers are told,
only when it was seen again at later horizons and no node says otherwise.
"""

import time
from typing import Any

import structlog
from sqlalchemy import insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from apps.clients.shapes.history import History as Page
from apps.clients.shapes.history import Horizon, Rebase
from apps.common.database import Sessions, transaction
from apps.common.errors import NotFound, ServiceError
from apps.ethereum.endpoints import ChainUnavailable, sum_up
from apps.ethereum.jsonrpc import RpcError, Unanswered
from apps.protocols.chain import Block, Chain
from apps.protocols.errors import ChainReorganized, HistoryIncomplete
from apps.protocols.items import shown, shown_rebase, stored
from apps.protocols.models import ScanCursor, ScannedBlock, ShareDifference, ShareEvent
from apps.protocols.proof import Proved, RangeRefused, Unproved, read_range
from apps.protocols.recorded import remember

# Each block of a range is looked at by its header, so a step is no wider than a few batches.
BLOCKS_PER_STEP = 500
# A catch-up that takes longer goes on at the next call; what is stored stays.
SCAN_BUDGET_SEC = 5.0
# A doubt becomes a verdict once it was seen at this many horizons, each later than the last.
SEEN_BEFORE_BELIEVED = 3
ROUNDS = 2  # how often each node is asked for a range before its answers count as a disagreement

log = structlog.get_logger(__name__)


class History:
    """Reads new blocks on demand; two readers at once store the same rows once."""

    def __init__(self, chain: Chain, sessions: Sessions) -> None:
        self.chain = chain
        self.sessions = sessions
        self._width = min(BLOCKS_PER_STEP, chain.settings.log_range_blocks)

    def page(self, after: tuple[int, int], limit: int, kinds: tuple[str, ...] | None = None) -> Page:
        """Items after a (block, log index), and the horizon up to which the history is complete.

        Raises `ChainReorganized` when a block that was read has left the chain, and `HistoryIncomplete` when no node's
        logs can be proved, both only once the doubt has become a verdict.
        """
        horizon = self.scan()
        place = tuple_(ShareEvent.block_number, ShareEvent.log_index)
        query = select(ShareEvent).where(place > after)
        if kinds is not None:
            query = query.where(ShareEvent.kind.in_(kinds))
        with transaction(self.sessions) as session:
            rows = session.scalars(query.order_by(place).limit(limit + 1)).all()
        items = [shown(stored(row)) for row in rows[:limit]]
        return Page(
            items=items,
            next=f"{items[-1].block_number}:{items[-1].log_index}" if len(rows) > limit else None,
            horizon=Horizon(block_number=horizon.number, block_hash=horizon.hash),
        )

    def last_rebases(self, limit: int) -> list[Rebase]:
        """The newest `limit` rebases up to the horizon, oldest first."""
        self.scan()
        query = select(ShareEvent).where(ShareEvent.kind == "rebase")
        newest_first = (ShareEvent.block_number.desc(), ShareEvent.log_index.desc())
        with transaction(self.sessions) as session:
            rows = session.scalars(query.order_by(*newest_first).limit(limit)).all()
        found = (shown_rebase(stored(row)) for row in reversed(rows))
        return [rebase for rebase in found if rebase is not None]

    def scan(self) -> Block:
        """Read what was not read yet of the blocks up to the horizon; returns the block up to which all is stored.

        Raises as `page` does.
        """
        give_up = time.monotonic() + SCAN_BUDGET_SEC
        horizon = self.chain.horizon()
        cursor = self._cursor(horizon)
        known = Block(cursor.block_number, cursor.block_hash, 0)
        if horizon < known.number:
            return known  # the node that answers now is behind the one that answered when this was read
        self.check_standing(cursor, horizon)
        shares = cursor.proved_shares if cursor.proved_block == cursor.block_number else None
        while known.number < horizon and time.monotonic() < give_up:
            try:
                found = self._step(known, shares, horizon)
            except Unproved as doubt:
                if self._width > 1:
                    self._width //= 2  # what is right before it is stored, and the doubt names one block in the end
                    continue
                self._doubted("incomplete", str(doubt), horizon)
                break
            self._store(known, found)
            known, shares = found.end, found.shares
        return known

    def check_standing(self, cursor: ScanCursor, horizon: int) -> None:
        """That the cursor's block is still in the chain: one node that shows it is enough.

        Raises `ChainReorganized` once all that answer have said so at several horizons, `ChainUnavailable` before.
        """
        try:
            self.chain.block(cursor.block_number, cursor.block_hash)
        except ChainUnavailable as error:
            try:
                now = self.chain.block(cursor.block_number)
            except (ChainUnavailable, NotFound):
                raise error from None
            # The first look may have failed for another reason: only another block in its place is a doubt.
            if now.hash != cursor.block_hash:
                detail = (
                    f"Block {cursor.block_number} was read as {cursor.block_hash} and is gone; it is {now.hash} now."
                )
                self._doubted("reorganized", detail, horizon)
                raise ChainUnavailable(f"{detail} It is looked at again at a later block.") from error
        if cursor.doubt == "reorganized":
            self._cleared()

    def cursor(self) -> ScanCursor | None:
        """How far the chain is read; None before anything was."""
        with transaction(self.sessions) as session:
            return session.scalars(select(ScanCursor)).one_or_none()

    def known_hash(self, number: int) -> str | None:
        """The hash that a block was read with; None where it was not read, where that is long ago, and where it is known
        that the chain has other blocks now."""
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor)).one_or_none()
            if cursor is None or (cursor.doubt == "reorganized" and cursor.doubt_count >= SEEN_BEFORE_BELIEVED):
                return None
            if cursor.block_number == number:
                return cursor.block_hash
            return session.scalar(select(ScannedBlock.block_hash).where(ScannedBlock.block_number == number))

    def doubts(self) -> dict[str, Any]:  # a status page is free JSON
        """For the status page: how far the history is read; raises what the next page of it would raise."""
        cursor = self.cursor()
        if cursor is None:
            return {"block_number": None}
        if cursor.doubt is not None and cursor.doubt_count >= SEEN_BEFORE_BELIEVED:
            raise _VERDICTS[cursor.doubt](cursor.doubt_detail)
        return {"block_number": cursor.block_number, "doubt": cursor.doubt}

    def read(self, known: Block, shares: int | None, end: int, said: int = 0) -> Proved:
        """A range, proved by the first node that can: each is asked twice before its answers count as a disagreement.

        `said`: a difference of shares in it that is about to be accepted, beside those that are.

        Raises `Unproved`, `RangeRefused`, or `ChainUnavailable` where no node answers.
        """
        doubt: Unproved | None = None
        refused: RangeRefused | None = None
        accepted = said + self._accepted(known.number, end)
        for _ in range(ROUNDS):
            failed: list[Any] = []
            for endpoint in self.chain.endpoints.in_order():
                try:
                    return read_range(self.chain, endpoint, known, shares, end, accepted)
                except Unproved as error:
                    log.warning("range_unproved", endpoint=endpoint.number, why=str(error))
                    doubt = error
                except RangeRefused as error:
                    refused = error
                    failed.append((endpoint, error.error))
                except (Unanswered, RpcError) as error:
                    self.chain.endpoints.failed(endpoint)
                    failed.append((endpoint, error))
            if doubt is None:
                if refused is not None and end - known.number > 1:
                    raise refused
                raise sum_up(failed)
        assert doubt is not None  # else the loop has ended
        raise doubt

    def _accepted(self, after: int, end: int) -> int:
        """Shares that came or went without a log in the blocks after `after` up to `end`, as ops have said."""
        with transaction(self.sessions) as session:
            rows = session.scalars(
                select(ShareDifference.shares).where(
                    ShareDifference.block_number > after, ShareDifference.block_number <= end
                )
            )
            return sum(rows)

    def _step(self, known: Block, shares: int | None, horizon: int) -> Proved:
        """The next range, proved; narrower where the nodes refuse so many blocks."""
        while True:
            end = min(horizon, known.number + self._width)
            try:
                found = self.read(known, shares, end)
            except RangeRefused:
                self._width = max(1, (end - known.number) // 2)
                continue
            if end - known.number == self._width:
                self._width = min(BLOCKS_PER_STEP, self.chain.settings.log_range_blocks, self._width * 2)
            return found

    def _cursor(self, horizon: int) -> ScanCursor:
        row = self.cursor()
        if row is not None:
            return row
        block = self.chain.block(self.chain.first_block(horizon))
        first = {"id": True, "start_block": block.number, "block_number": block.number, "block_hash": block.hash}
        with transaction(self.sessions) as session:
            session.execute(upsert(ScanCursor).values(first).on_conflict_do_nothing())  # two first readers at once
            return session.scalars(select(ScanCursor)).one()

    def _store(self, known: Block, found: Proved) -> None:
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor).with_for_update()).one()
            if (cursor.block_number, cursor.block_hash) != (known.number, known.hash):
                return  # another reader has stored this range
            if found.items:
                session.execute(insert(ShareEvent), [vars(item) for item in found.items])
            remember(session, found.hashes)
            cursor.block_number, cursor.block_hash = found.end.number, found.end.hash
            cursor.proved_block, cursor.proved_shares = found.end.number, found.shares
            if cursor.doubt == "incomplete":
                cursor.clear_doubt()

    def _doubted(self, doubt: str, detail: str, horizon: int) -> None:
        """Write a doubt down; raises it as a verdict once it was seen often enough, each time at a later horizon."""
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor).with_for_update()).one()
            if cursor.doubt != doubt:
                cursor.doubt, cursor.doubt_block, cursor.doubt_count = doubt, None, 0
            if cursor.doubt_block is None or horizon > cursor.doubt_block:
                cursor.doubt_block, cursor.doubt_count = horizon, cursor.doubt_count + 1
            cursor.doubt_detail = detail
            seen = cursor.doubt_count
        log.warning("history_doubted", doubt=doubt, seen=seen, detail=detail)
        if seen >= SEEN_BEFORE_BELIEVED:
            raise _VERDICTS[doubt](detail)

    def _cleared(self) -> None:
        """A node shows again what was read."""
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor).with_for_update()).one()
            if cursor.doubt == "reorganized":
                cursor.clear_doubt()


_VERDICTS: dict[str, type[ServiceError]] = {"incomplete": HistoryIncomplete, "reorganized": ChainReorganized}


def parse_cursor(after: str | None) -> tuple[int, int]:
    """The (block, log index) in a cursor ``<block>:<log_index>``; before everything where there is none."""
    if after is None:
        return (-1, -1)
    block, _, index = after.partition(":")
    return int(block), int(index)
