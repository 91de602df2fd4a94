"""Repairs of the stored history that ops ask for: a range read again, and shares accepted that moved without a log.

An older release, or a node that answered wrongly, may have stored a range wrongly. What is read again is proved like all
that is stored (`apps.protocols.proof`), else nothing is changed. Items that the chain has are added, items that it has
not are removed, and both are written down with who asked and why. Nothing here touches books: the answer tells ops what
was removed that the walk has booked, or added at a place that the walk has passed.
"""

from dataclasses import dataclass

import structlog
from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.orm import Session

from apps.clients.shapes.history import NewRescan, NewShareDifference
from apps.common.errors import InvalidInput
from apps.common.wire import new_id
from apps.protocols.chain import Block
from apps.protocols.errors import DifferenceUnproved, HistoryIncomplete
from apps.protocols.history import BLOCKS_PER_STEP, History
from apps.protocols.items import Item, shown, stored
from apps.protocols.models import Rescan, ScanCursor, ShareDifference, ShareEvent
from apps.protocols.proof import RangeRefused, Unproved
from apps.protocols.recorded import remember

# What one call reads; a longer part is rescanned in several calls, each up to its `to_block`.
MOST_BLOCKS = 10_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Found:
    """What the chain has in a range, proved, and the operator's shares at its end."""

    end: Block
    shares: int
    items: list[Item]
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
    items: list[Item] = []
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
        items += found.items
        hashes += found.hashes
        known, shares = found.end, found.shares
    assert shares is not None  # the range has a block, and each step tells the shares at its end
    return Found(known, shares, items, hashes)


def replace(session: Session, found: Found, request: NewRescan) -> Rescan:
    """Make the stored items of the range those that were found, and write down what that changed."""
    first, last = request.from_block, found.end.number
    cursor = session.scalars(select(ScanCursor).with_for_update()).one()
    rows = session.scalars(
        select(ShareEvent)
        .where(ShareEvent.block_number.between(first, last))
        .order_by(ShareEvent.block_number, ShareEvent.log_index)
    )
    there, wanted = [stored(row) for row in rows], set(found.items)
    gone = [item for item in there if item not in wanted]
    new = sorted(wanted - set(there), key=lambda item: item.place)
    if gone:
        places = [item.place for item in gone]
        session.execute(delete(ShareEvent).where(tuple_(ShareEvent.block_number, ShareEvent.log_index).in_(places)))
    if new:
        session.execute(insert(ShareEvent), [vars(item) for item in new])
    remember(session, found.hashes)
    if cursor.block_number == last:
        cursor.block_hash = found.end.hash
        cursor.proved_block, cursor.proved_shares = last, found.shares
        cursor.clear_doubt()
    row = Rescan(
        id=new_id(),
        message_id=request.message_id,
        from_block=first,
        to_block=last,
        to_block_hash=found.end.hash,
        reason=request.reason,
        requested_by=request.requested_by,
        added=[shown(item) for item in new],
        removed=[shown(item) for item in gone],
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    changed = {"added": len(new), "removed": len(gone)}
    log.warning("history_rescanned", from_block=first, to_block=last, by=row.requested_by, **changed)
    return row


def check_difference(history: History, block_number: int, shares: int) -> None:
    """Raise `DifferenceUnproved` unless that many shares came (or went, below zero) in this very block without a log.

    Everything else about the block is proved as always, so this can excuse no log that a node leaves out: the receipts of
    the block's suspects are all there, and what they move is counted.
    """
    cursor = history.cursor()
    if cursor is None or block_number <= cursor.block_number:
        raise InvalidInput(errors={"block_number": ["This block is stored already, so nothing is unexplained in it."]})
    proved = cursor.proved_shares if cursor.proved_block == block_number - 1 else None
    try:
        history.read(history.chain.block(block_number - 1), proved, block_number, said=shares)
    except Unproved as doubt:
        raise DifferenceUnproved(str(doubt)) from doubt


def add_difference(session: Session, request: NewShareDifference) -> ShareDifference:
    """Keep a checked difference. Raises `InvalidInput` for a second one of a block."""
    number = request.block_number
    if session.get(ShareDifference, number) is not None:
        raise InvalidInput(errors={"block_number": ["A difference of this block was accepted before."]})
    row = ShareDifference(**vars(request))
    session.add(row)
    session.flush()
    session.refresh(row)
    log.warning("share_difference_accepted", block_number=number, shares=str(row.shares), by=row.requested_by)
    return row
