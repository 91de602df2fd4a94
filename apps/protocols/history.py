"""The operator's share history in chain order, up to the money horizon: read by log ranges, stored, classified.

Every share that enters or leaves the operator is an item: `submit`, `request`, `foreign_in`, `foreign_out`; so are each
`claim` of its withdrawals and each `rebase` with the operator's shares just before it.
"""

import re
from typing import Any

from sqlalchemy import insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.ethereum import PUBLIC_CHAINS, ChainUnavailable
from apps.common.wei import exact_int
from apps.protocols import classify
from apps.protocols.chain import Block, Chain, NodeRefused
from apps.protocols.errors import ChainReorganized
from apps.protocols.events import TOPICS, integer, topic_of
from apps.protocols.models import ScanCursor, ShareEvent

# Of an item, or of a walk that has all of a block (the largest index) or nothing of it (-1).
CURSOR = re.compile(r"(?:0|[1-9][0-9]{0,15}):(?:-1|0|[1-9][0-9]{0,9})", re.ASCII)
# In reading order, which JSONB does not keep.
REBASE_TOTALS = (
    "time_elapsed_sec", "pre_total_shares", "pre_total_ether_wei", "post_total_shares", "post_total_ether_wei",
    "operator_shares",
)  # fmt: skip


class History:
    """Reads new blocks on demand; two readers at once store the same rows once."""

    def __init__(self, chain: Chain, sessions: Sessions) -> None:
        self.chain = chain
        self.sessions = sessions

    def page(self, after: tuple[int, int], limit: int, kinds: tuple[str, ...] | None = None) -> dict[str, Any]:
        """Items after a (block, log index), and the horizon up to which the history is complete.

        Raises `ChainReorganized` when a block that was read has left the chain.
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
        """Read every block up to the horizon that was not read yet; returns the block up to which all is stored."""
        horizon = self.chain.horizon()
        cursor = self._cursor(horizon)
        known = self._read_before(cursor)
        if known.hash != cursor.block_hash:
            raise ChainReorganized(f"Block {cursor.block_number} was read as {cursor.block_hash} and is gone.")
        width = self.chain.settings.log_range_blocks
        while known.number < horizon:
            end = self.chain.block(min(horizon, known.number + width))
            try:
                rows = self._read(known.number + 1, end.number)
            except NodeRefused:
                if end.number - known.number == 1:
                    raise
                width = (end.number - known.number) // 2  # nodes limit ranges, each in its own way
                continue
            if self.chain.block(end.number).hash != end.hash:
                break  # the chain moved under this read; the next call reads the range again
            self._store(known, end, rows)
            known = end
        return known

    def _read_before(self, cursor: ScanCursor) -> Block:
        """The block at the cursor, as the node has it now."""
        try:
            return self.chain.block(cursor.block_number)
        except NotFound as error:
            # It was there once, so the node that answers now is behind the one that did then.
            raise ChainUnavailable(f"The node has no block {cursor.block_number}, which was read before.") from error

    def _cursor(self, horizon: int) -> ScanCursor:
        with transaction(self.sessions) as session:
            row = session.scalars(select(ScanCursor)).one_or_none()
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

    def _store(self, known: Block, end: Block, rows: list[dict[str, Any]]) -> None:
        with transaction(self.sessions) as session:
            cursor = session.scalars(select(ScanCursor).with_for_update()).one()
            if cursor.block_number != known.number:
                return  # another reader has stored this range
            if rows:
                session.execute(insert(ShareEvent), rows)
            cursor.block_number, cursor.block_hash = end.number, end.hash

    def _read(self, start: int, end: int) -> list[dict[str, Any]]:
        chain, me = self.chain, topic_of(self.chain.operator)
        steth, queue = chain.steth.address, chain.queue.address
        out, into, rebased, submitted, sent, received, requested, claimed = chain.batch(
            [
                chain.logs([steth], [TOPICS["TransferShares"], me], start, end),
                chain.logs([steth], [TOPICS["TransferShares"], None, me], start, end),
                chain.logs([steth], [TOPICS["TokenRebased"]], start, end),
                chain.logs([steth], [TOPICS["Submitted"], me], start, end),
                chain.logs([steth], [TOPICS["Transfer"], me], start, end),
                chain.logs([steth], [TOPICS["Transfer"], None, me], start, end),
                chain.logs([queue], [TOPICS["WithdrawalRequested"], None, None, me], start, end),
                chain.logs([queue], [TOPICS["WithdrawalClaimed"], None, me], start, end),
            ]
        )
        rows = classify.flows([*out, *into], [*sent, *received], submitted, requested, me=me, queue=topic_of(queue))
        rows += [*map(classify.claim, claimed), *self._rebases(rebased, rows)]
        columns = ("shares", "amount_wei", "withdrawal_id", "reward_wei", "rebase")
        return [{**dict.fromkeys(columns), **row} for row in rows]

    def _rebases(self, rebased: list[Any], flows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each rebase with the operator's shares just before it: those at the end of the block before, asked of the
        chain, and the flows of its own block that stand before it."""
        before = self._shares_before(rebased)
        rows = []
        for log in rebased:
            block, index = classify.place(log)
            same_block = sum(
                row["shares"] if row["kind"] in {"submit", "foreign_in"} else -row["shares"]
                for row in flows
                if row["block_number"] == block and row["log_index"] < index
            )
            rows.append(classify.rebase(log, before[block] + same_block))
        return rows

    def _shares_before(self, rebased: list[Any]) -> dict[int, int]:
        """The operator's shares at the end of the block before each rebase: asked of the chain, not summed up here."""
        numbers = sorted({integer(log["blockNumber"]) for log in rebased})
        calls = [
            self.chain.call(self.chain.steth, "sharesOf", [self.chain.operator], Block(number - 1, "", 0), "uint256")
            for number in numbers
        ]
        return dict(zip(numbers, self.chain.batch(calls), strict=True)) if calls else {}


def parse_cursor(after: str | None) -> tuple[int, int]:
    """Read ``<block>:<log_index>``; nothing means the beginning."""
    if after is None:
        return (-1, -1)
    if not CURSOR.fullmatch(after):
        raise InvalidInput(errors={"after": ["Give <block>:<log_index>, such as the value of `next`."]})
    block, _, index = after.partition(":")
    return int(block), int(index)


def flow_sums(session: Session, up_to_block: int) -> dict[str, int]:
    """Shares by kind of item, up to a block."""
    rows = session.execute(
        select(ShareEvent.kind, ShareEvent.shares).where(
            ShareEvent.block_number <= up_to_block, ShareEvent.shares.is_not(None)
        )
    )
    sums: dict[str, int] = {}
    for kind, shares in rows:
        sums[kind] = sums.get(kind, 0) + int(shares or 0)
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
