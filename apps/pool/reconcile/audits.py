"""Audits of ledger and reward index on a schedule of their own: what is new often, everything rarely."""

import structlog
from sqlalchemy import update

from apps.clients.audits import AuditedClient
from apps.clients.base import CallFailed
from apps.common.database import transaction
from apps.flow.row import reason
from apps.pool.context import PoolContext
from apps.pool.models import Walk

log = structlog.get_logger(__name__)


def audit_books(context: PoolContext, pool_id: str, *, full: bool) -> bool | None:
    """Ask ledger and rewards for an audit, a full one or one of what is new; returns whether all is right, None where neither
    says so and one of them did not answer.

    A full audit may take longer than a call. It goes on all the same, and what it found is told by the next run here.
    """
    verdicts = {
        "ledger_audit": _verdict(context.ledger, pool_id, full=full),
        "rewards_audit": _verdict(context.rewards, pool_id, full=full),
    }
    off = [name for name, verdict in verdicts.items() if verdict is False]
    if off:
        log.error("audit_found_differences", pool_id=pool_id, audits=off)
        pause_batches(context, pool_id, off)
        return False
    return True if all(verdicts.values()) else None


def pause_batches(context: PoolContext, pool_id: str, lines: list[str]) -> None:
    """Open no batch until ops have looked, where the settings say so."""
    if not context.settings.pause_on_drift:
        return
    why = reason("drift", f"Reconciliation found a drift in: {', '.join(lines)}.")
    with transaction(context.sessions) as session:
        session.execute(update(Walk).where(Walk.id == pool_id).values(batches_paused=why))


def _verdict(client: AuditedClient, pool_id: str, *, full: bool) -> bool | None:
    try:
        return client.audit(pool_id, full=full).ok
    except CallFailed as error:
        log.info("audit_unanswered", why=str(error))
    try:
        latest = client.latest_audit()
    except CallFailed:
        return None
    return False if latest is not None and not latest.ok else None
