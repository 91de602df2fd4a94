"""What is stored of the history: sums over it, its open withdrawals, and the hashes that its blocks were read with."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from apps.common.wei import exact_int
from apps.protocols.models import ScannedBlock, ShareDifference, ShareEvent

HASHES_KEPT = 10_000


def remember(session: Session, hashes: Sequence[tuple[int, str]]) -> None:
    """Keep the hashes of blocks that were read, the newest ten thousand."""
    rows = [{"block_number": number, "block_hash": block_hash} for number, block_hash in hashes]
    change = upsert(ScannedBlock)
    changed = {"block_hash": change.excluded.block_hash}
    session.execute(change.on_conflict_do_update(index_elements=["block_number"], set_=changed), rows)
    session.execute(delete(ScannedBlock).where(ScannedBlock.block_number < hashes[-1][0] - HASHES_KEPT))


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
