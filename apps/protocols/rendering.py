"""Rows of protocols as its callers are shown them."""

from apps.clients.shapes.history import Rescan as ShownRescan
from apps.clients.shapes.history import ShareDifference as ShownDifference
from apps.clients.shapes.reconciliation import Reconciliation
from apps.protocols.models import ReconciliationRun, Rescan, ShareDifference


def shown_reconciliation(row: ReconciliationRun) -> Reconciliation:
    return Reconciliation(
        id=row.id,
        message_id=row.message_id,
        block_number=row.block_number,
        block_hash=row.block_hash,
        verdict=row.verdict,
        reason=None,
        lines=row.lines,
        created_at=row.created_at,
    )


def shown_rescan(row: Rescan) -> ShownRescan:
    return ShownRescan(
        id=row.id,
        message_id=row.message_id,
        from_block=row.from_block,
        to_block=row.to_block,
        to_block_hash=row.to_block_hash,
        reason=row.reason,
        requested_by=row.requested_by,
        added=row.added,
        removed=row.removed,
        created_at=row.created_at,
    )


def shown_difference(row: ShareDifference) -> ShownDifference:
    return ShownDifference(
        message_id=row.message_id,
        block_number=row.block_number,
        shares=row.shares,
        reason=row.reason,
        requested_by=row.requested_by,
        created_at=row.created_at,
    )
