"""The operator's share history in chain order, up to the money horizon: read by log ranges, stored, classified.

Every share that enters or leaves the operator is an item: `submit`, `request`, `foreign_in`, `foreign_out`; so are each
`claim` of its withdrawals and each `rebase` with the operator's shares just before it.
"""

from typing import Any

from sqlalchemy import insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from apps.common.database import Sessions, transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.ethereum import PUBLIC_CHAINS, ChainUnavailable
from apps.common.wei import exact_int
from apps.protocols.chain import Block, Chain
from apps.protocols.errors import ChainReorganized
from apps.protocols.events import TOPICS, integer, topic_of, words
from apps.protocols.models import ScanCursor, ShareEvent

ZERO_TOPIC = "0x" + "0" * 64
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

    def scan(self) -> Block:
        """Read every block up to the horizon that was not read yet; returns the block up to which all is stored."""
        horizon = self.chain.horizon()
        cursor = self._cursor(horizon)
        known = self._read_before(cursor)
        if known.hash != cursor.block_hash:
            raise ChainReorganized(f"Block {cursor.block_number} was read as {cursor.block_hash} and is gone.")
        while known.number < horizon:
            end = self.chain.block(min(horizon, known.number + self.chain.settings.log_range_blocks))
            rows = self._read(known.number + 1, end.number)
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
        by_place = {_place(log): log for log in [*submitted, *sent, *received, *requested]}
        flows = {_place(log): _flow(log, me, topic_of(queue), by_place) for log in [*out, *into]}
        rows = [row for row in flows.values() if row is not None]
        rows += [
            {**_base(log), "kind": "claim", "amount_wei": words(log)[0], "withdrawal_id": integer(log["topics"][1])}
            for log in claimed
        ]
        shares_before = self._shares_before(rebased)
        for log in rebased:
            same_block = sum(
                row["shares"] if row["kind"] in {"submit", "foreign_in"} else -row["shares"]
                for row in flows.values()
                if row is not None
                and row["block_number"] == integer(log["blockNumber"])
                and row["log_index"] < integer(log["logIndex"])
            )
            rows.append(_rebase(log, shares_before[integer(log["blockNumber"])] + same_block))
        columns = ("shares", "amount_wei", "withdrawal_id", "reward_wei", "rebase")
        return [{**dict.fromkeys(columns), **row} for row in rows]

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
    if not after:
        return (-1, -1)
    block, _, index = after.partition(":")
    if not (block.isdecimal() and index.removeprefix("-").isdecimal()) or len(after) > 40:
        raise InvalidInput(errors={"after": ["Give <block>:<log_index>, such as the value of `next`."]})
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


def _place(log: Any) -> tuple[int, int]:
    return integer(log["blockNumber"]), integer(log["logIndex"])


def _base(log: Any) -> dict[str, Any]:
    return {
        "block_number": integer(log["blockNumber"]),
        "log_index": integer(log["logIndex"]),
        "block_hash": log["blockHash"],
        "tx_hash": log["transactionHash"],
    }


def _flow(log: Any, me: str, queue: str, by_place: dict[tuple[int, int], Any]) -> dict[str, Any] | None:
    """Classify one share transfer of the operator; to itself it moves nothing.

    Lido emits Submitted, Transfer, TransferShares for a stake, and Transfer, TransferShares, then the queue's
    WithdrawalRequested for a request, each group in one piece of the receipt, one log right after the other. `by_place`
    holds the operator's own logs only, so a request of its shares in another's name is no `request`.
    """
    source, target = log["topics"][1].lower(), log["topics"][2].lower()
    if source == target:
        return None
    row = {**_base(log), "shares": words(log)[0]}
    block, index = _place(log)
    transfer = by_place.get((block, index - 1))
    value = words(transfer)[0] if transfer is not None and transfer["topics"][0] == TOPICS["Transfer"] else 0
    submitted = by_place.get((block, index - 2))
    if source == ZERO_TOPIC and submitted is not None and submitted["topics"][0] == TOPICS["Submitted"]:
        return {**row, "kind": "submit", "amount_wei": words(submitted)[0]}
    if target == queue:
        request = by_place.get((block, index + 1))
        if request is not None and request["topics"][0] == TOPICS["WithdrawalRequested"]:
            return {
                **row,
                "kind": "request",
                "amount_wei": words(request)[0],
                "withdrawal_id": integer(request["topics"][1]),
            }
    return {**row, "kind": "foreign_in" if target == me else "foreign_out", "amount_wei": value}


def _rebase(log: Any, operator_shares: int) -> dict[str, Any]:
    """A TokenRebased with its reward: S * post ether // post shares - S * pre ether // pre shares, signed.

    This is how Lido's own rewards backend computes a holder's reward; ether delta alone is wrong in size and sign.
    """
    elapsed, pre_shares, pre_ether, post_shares, post_ether, _fee_shares = words(log)
    reward = operator_shares * post_ether // post_shares - operator_shares * pre_ether // pre_shares
    rebase = {
        "time_elapsed_sec": elapsed,
        "pre_total_shares": str(pre_shares),
        "pre_total_ether_wei": str(pre_ether),
        "post_total_shares": str(post_shares),
        "post_total_ether_wei": str(post_ether),
        "operator_shares": str(operator_shares),
    }
    return {**_base(log), "kind": "rebase", "shares": None, "reward_wei": reward, "rebase": rebase}
