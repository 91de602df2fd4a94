"""The operator's share history in chain order, up to the money horizon: read by ranges, proved, stored, classified.

Every share that enters or leaves the operator is an item: `submit`, `request`, `foreign_in`, `foreign_out`; so are each
`claim` of its withdrawals and each `rebase` with the operator's shares just before it. What is stored is proved
(`apps.protocols.proof`). What nodes say against it is a doubt first, and a verdict only when it was seen again at later
horizons and no node says otherwise.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput, NotFound, ServiceError
from apps.common.wei import exact_int
from apps.ethereum.endpoints import ChainUnavailable, sum_up
from apps.ethereum.horizon import PUBLIC_CHAINS
from apps.ethereum.jsonrpc import RpcError, Unanswered
from apps.protocols.chain import Block, Chain
from apps.protocols.errors import ChainReorganized, HistoryIncomplete
from apps.protocols.models import ScanCursor, ScannedBlock, ShareDifference, ShareEvent
from apps.protocols.proof import Proved, RangeRefused, Unproved, read_range

# Of an item, or of a walk that has all of a block (the largest index) or nothing of it (-1).
CURSOR = re.compile(r"(?:0|[1-9][0-9]{0,15}):(?:-1|0|[1-9][0-9]{0,9})", re.ASCII)
# In reading order, which JSONB does not keep.
REBASE_TOTALS = (
    "time_elapsed_sec", "pre_total_shares", "pre_total_ether_wei", "post_total_shares", "post_total_ether_wei",
    "operator_shares",
)  # fmt: skip
# Each block of a range is looked at by its header, so a step is no wider than a few batches.
BLOCKS_PER_STEP = 500
# A catch-up that takes longer goes on at the next call; what is stored stays.
SCAN_BUDGET_SEC = 5.0
# A doubt becomes a verdict once it was seen at so many horizons, each later than the last.
SEEN_BEFORE_BELIEVED = 3
HASHES_KEPT = 10_000
ROUNDS = 2  # so often each node is asked for a range before its answers count as a disagreement

log = structlog.get_logger(__name__)


class History:
    """Reads new blocks on demand; two readers at once store the same rows once."""

    def __init__(self, chain: Chain, sessions: Sessions) -> None:
        self.chain = chain
        self.sessions = sessions
        self._width = min(BLOCKS_PER_STEP, chain.settings.log_range_blocks)

    def page(self, after: tuple[int, int], limit: int, kinds: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Items after a (block, log index), and the horizon up to which the history is complete.

        Raises `ChainReorganized` when a block that was read has left the chain, `HistoryIncomplete` when the node's logs
        are, for longer than a moment.
        """
        horizon = self.scan()
        place = tuple_(ShareEvent.block_number, ShareEvent.log_index)
        query = select(ShareEvent).where(place > after)
        if kinds is not None:
            query = query.where(ShareEvent.kind.in_(kinds))
        with transaction(self.sessions) as session:
            rows = session.scalars(query.order_by(place).limit(limit + 1)).all()
        shown = rows[:limit]
        more = len(rows) > limit
        return {
            "items": [render_item(row) for row in shown],
            "next": f"{shown[-1].block_number}:{shown[-1].log_index}" if more else None,
            "horizon": {"block_number": horizon.number, "block_hash": horizon.hash},
        }

    def last_rebases(self, limit: int) -> list[dict[str, Any]]:
        """The `rebase` shapes of the newest so many rebases up to the horizon, oldest first."""
        self.scan()
        query = select(ShareEvent).where(ShareEvent.kind == "rebase")
        newest_first = (ShareEvent.block_number.desc(), ShareEvent.log_index.desc())
        with transaction(self.sessions) as session:
            rows = session.scalars(query.order_by(*newest_first).limit(limit)).all()
        return [render_item(row)["rebase"] for row in reversed(rows)]

    def scan(self) -> Block:
        """Read what was not read yet of the blocks up to the horizon; returns the block up to which all is stored."""
        give_up = time.monotonic() + SCAN_BUDGET_SEC
        horizon = self.chain.horizon()
        cursor = self._cursor(horizon)
        known = Block(cursor.block_number, cursor.block_hash, 0)
        if horizon < known.number:
            return known  # the node that answers now is behind the one that did then
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
        """That the cursor's block is still in the chain, by the word of any node.

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
        """How far it is read; None before the first look."""
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

    def doubts(self) -> dict[str, Any]:
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

        Raises `Unproved`, `RangeRefused`, or what it means that no node answers.
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
        """The next range that a node answers: narrower where it refuses."""
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
        start = self.chain.settings.start_block
        if start is None:
            start = horizon if self.chain.chain_id in PUBLIC_CHAINS else 0
        block = self.chain.block(start)
        first = {"id": True, "start_block": block.number, "block_number": block.number, "block_hash": block.hash}
        with transaction(self.sessions) as session:
            session.execute(upsert(ScanCursor).values(first).on_conflict_do_nothing())  # two first readers at once
            return session.scalars(select(ScanCursor)).one()

    def _store(self, known: Block, found: Proved) -> None:
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor).with_for_update()).one()
            if (cursor.block_number, cursor.block_hash) != (known.number, known.hash):
                return  # another reader has stored this range
            if found.rows:
                session.execute(insert(ShareEvent), found.rows)
            remember(session, found.hashes)
            cursor.block_number, cursor.block_hash = found.end.number, found.end.hash
            cursor.proved_block, cursor.proved_shares = found.end.number, found.shares
            if cursor.doubt == "incomplete":
                cursor.doubt, cursor.doubt_detail, cursor.doubt_block, cursor.doubt_count = None, None, None, 0

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
        """What was doubted is as it was read, by the word of a node."""
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor).with_for_update()).one()
            if cursor.doubt == "reorganized":
                cursor.doubt, cursor.doubt_detail, cursor.doubt_block, cursor.doubt_count = None, None, None, 0


_VERDICTS: dict[str, type[ServiceError]] = {"incomplete": HistoryIncomplete, "reorganized": ChainReorganized}


def remember(session: Session, hashes: Sequence[tuple[int, str]]) -> None:
    """Keep the hashes of blocks that were read, the newest ten thousand."""
    rows = [{"block_number": number, "block_hash": block_hash} for number, block_hash in hashes]
    change = upsert(ScannedBlock)
    changed = {"block_hash": change.excluded.block_hash}
    session.execute(change.on_conflict_do_update(index_elements=["block_number"], set_=changed), rows)
    session.execute(delete(ScannedBlock).where(ScannedBlock.block_number < hashes[-1][0] - HASHES_KEPT))


def parse_cursor(after: str | None) -> tuple[int, int]:
    """Read ``<block>:<log_index>``; nothing means the beginning."""
    if after is None:
        return (-1, -1)
    if not CURSOR.fullmatch(after):
        raise InvalidInput(errors={"after": ["Give <block>:<log_index>, such as the value of `next`."]})
    block, _, index = after.partition(":")
    return int(block), int(index)


def flow_sums(session: Session, up_to_block: int) -> dict[str, int]:
    """Shares by kind of item, up to a block; ``accepted`` (signed) are those without an item."""
    rows = session.execute(
        select(ShareEvent.kind, ShareEvent.shares).where(
            ShareEvent.block_number <= up_to_block, ShareEvent.shares.is_not(None)
        )
    )
    sums: dict[str, int] = {}
    for kind, shares in rows:
        sums[kind] = sums.get(kind, 0) + int(shares or 0)
    accepted = select(ShareDifference.shares).where(ShareDifference.block_number <= up_to_block)
    sums["accepted"] = sum(session.scalars(accepted))
    return sums


def open_withdrawals(session: Session, up_to_block: int) -> dict[int, int]:
    """Face wei of the NFTs requested and not claimed up to a block, by id."""
    rows = session.execute(
        select(ShareEvent.kind, ShareEvent.withdrawal_id, ShareEvent.amount_wei)
        .where(ShareEvent.block_number <= up_to_block, ShareEvent.withdrawal_id.is_not(None))
        .order_by(ShareEvent.block_number, ShareEvent.log_index)
    )
    found: dict[int, int] = {}
    for kind, withdrawal_id, amount in rows:
        assert withdrawal_id is not None  # the query's own condition, which the type of the column cannot say
        if kind == "request":
            found[withdrawal_id] = exact_int(amount)
        else:
            found.pop(withdrawal_id, None)
    return found


def render_item(row: ShareEvent) -> dict[str, Any]:
    item: dict[str, Any] = {
        "kind": row.kind,
        "block_number": row.block_number,
        "block_hash": row.block_hash,
        "tx_hash": row.tx_hash,
        "log_index": row.log_index,
        "shares": None if row.shares is None else str(row.shares),
        "amount_wei": None if row.amount_wei is None else str(row.amount_wei),
        "rebase": None,
    }
    if row.rebase is not None:
        place = {name: item[name] for name in ("block_number", "block_hash", "tx_hash", "log_index")}
        totals = {name: row.rebase[name] for name in REBASE_TOTALS}
        item["rebase"] = {**place, **totals, "reward_wei": str(row.reward_wei)}
    return item
