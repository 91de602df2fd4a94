"""A part of the history read again on somebody's word: what an older release, or a node that lied, had stored wrongly.

What is read is proved like everything that is stored (`apps.protocols.proof`), else nothing is changed. Items that the chain
has are added, items that it has not are removed, and what that was is written down with who asked and why. Whoever has
booked what was removed, or passed the place of what was added, learns it from the answer: nothing here touches books.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.orm import Session

from apps.common.errors import InvalidInput
from apps.common.wire import new_id, time_text
from apps.protocols.chain import Block
from apps.protocols.errors import HistoryIncomplete
from apps.protocols.history import BLOCKS_PER_STEP, History, remember, render_item
from apps.protocols.models import Rescan, ScanCursor, ShareEvent
from apps.protocols.proof import RangeRefused, Unproved

# What one call reads; a longer part is rescanned in several calls, each up to its `to_block`.
MOST_BLOCKS = 10_000
_COLUMNS = (
    "block_number", "log_index", "block_hash", "tx_hash", "kind", "shares", "amount_wei", "withdrawal_id", "reward_wei",
    "rebase",
)  # fmt: skip

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """What the chain has in a range, proved, and the operator's shares at its end."""

    end: Block
    shares: int
    rows: list[dict[str, Any]]
    hashes: list[tuple[int, str]]


def gather(history: History, from_block: int, to_block: int | None) -> Found:
    """Read the blocks from `from_block` on, up to the block that is read so far or to `to_block`.

    Raises `InvalidInput` for a range that was never read, `HistoryIncomplete` where it cannot be proved.
    """
    cursor = history.cursor()
    if cursor is None or not cursor.start_block < from_block <= cursor.block_number:
        read = "nothing yet" if cursor is None else f"blocks {cursor.start_block + 1} to {cursor.block_number}"
        raise InvalidInput(errors={"from_block": [f"Must be a block that was read; that is {read}."]})
    last = cursor.block_number if to_block is None else to_block
    if not from_block <= last <= cursor.block_number:
        raise InvalidInput(errors={"to_block": [f"Must be from {from_block} to {cursor.block_number}."]})
    if last - from_block >= MOST_BLOCKS:
        raise InvalidInput(errors={"to_block": [f"One call reads {MOST_BLOCKS} blocks; name a `to_block`."]})
    known = history.chain.block(from_block - 1)
    shares: int | None = None
    rows: list[dict[str, Any]] = []
    hashes: list[tuple[int, str]] = []
    width = BLOCKS_PER_STEP
    while known.number < last:
        end = min(last, known.number + width)
        try:
            found = history.read(known, shares, end)
        except RangeRefused:
            width = max(1, (end - known.number) // 2)
            continue
        except Unproved as doubt:
            raise HistoryIncomplete(f"Nothing is changed: {doubt}") from doubt
        rows += found.rows
        hashes += found.hashes
        known, shares = found.end, found.shares
    assert shares is not None  # the range has a block, and each step tells the shares at its end
    return Found(known, shares, rows, hashes)


def replace(session: Session, found: Found, request: Mapping[str, Any]) -> dict[str, Any]:
    """Make the stored items of the range those that were found; returns the `rescan` shape."""
    first, last = int(request["from_block"]), found.end.number
    cursor = session.scalars(select(ScanCursor).with_for_update()).one()
    stored = session.scalars(
        select(ShareEvent)
        .where(ShareEvent.block_number.between(first, last))
        .order_by(ShareEvent.block_number, ShareEvent.log_index)
    ).all()
    there = {_identity(_columns(row)): row for row in stored}
    wanted = {_identity(row): row for row in found.rows}
    gone = [row for identity, row in there.items() if identity not in wanted]
    new = sorted((row for identity, row in wanted.items() if identity not in there), key=_place)
    removed = [render_item(row) for row in gone]
    if gone:
        places = [(row.block_number, row.log_index) for row in gone]
        session.execute(delete(ShareEvent).where(tuple_(ShareEvent.block_number, ShareEvent.log_index).in_(places)))
    if new:
        session.execute(insert(ShareEvent), new)
    remember(session, found.hashes)
    if cursor.block_number == last:
        cursor.block_hash = found.end.hash
        cursor.proved_block, cursor.proved_shares = last, found.shares
        cursor.doubt, cursor.doubt_detail, cursor.doubt_block, cursor.doubt_count = None, None, None, 0
    row = Rescan(
        id=new_id(),
        message_id=request["message_id"],
        from_block=first,
        to_block=last,
        to_block_hash=found.end.hash,
        reason=request["reason"],
        requested_by=request["requested_by"],
        added=[render_item(ShareEvent(**item)) for item in new],
        removed=removed,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    changed = {"added": len(new), "removed": len(removed)}
    log.warning("history_rescanned", from_block=first, to_block=last, by=row.requested_by, **changed)
    return render_rescan(row)


def render_rescan(row: Rescan) -> dict[str, Any]:
    return {
        "id": row.id,
        "message_id": row.message_id,
        "from_block": row.from_block,
        "to_block": row.to_block,
        "to_block_hash": row.to_block_hash,
        "reason": row.reason,
        "requested_by": row.requested_by,
        "added": _in_order(row.added),
        "removed": _in_order(row.removed),
        "created_at": time_text(row.created_at),
    }


def _columns(row: ShareEvent) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}


def _in_order(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSONB keeps no order of names; the answer has the history's."""
    names = ("kind", "block_number", "block_hash", "tx_hash", "log_index", "shares", "amount_wei", "rebase")
    return [{name: item[name] for name in names} for item in items]


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    return int(row["block_number"]), int(row["log_index"])


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Everything an item says; two that differ in anything are two items."""
    rebase = row["rebase"] and tuple(sorted(row["rebase"].items()))
    return (*(None if row[name] is None else str(row[name]) for name in _COLUMNS[:-1]), rebase)
