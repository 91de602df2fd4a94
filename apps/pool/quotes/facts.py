"""What estimates rest on, read: the queue, recent batches, the protocol's state and its last report."""

from contextlib import suppress

from sqlalchemy import func, select, text

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes.protocols import LidoState
from apps.common.database import transaction
from apps.pool.context import PoolContext
from apps.pool.flows.batching import rhythm, total_wei, unstakes_under_way, waited_sec
from apps.pool.flows.waiting import last_report
from apps.pool.models import Batch, Request
from apps.pool.quotes.estimate import Facts, Window
from apps.pool.states import RequestKind, RequestStatus

# Of so many of the last batches of each kind.
RECENT = 20
_TOOK = text(
    """
    SELECT kind, percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM updated_at - created_at)) AS took
    FROM (VALUES ('stake'), ('unstake'), ('claim')) kinds (wanted)
    CROSS JOIN LATERAL (
        SELECT kind, created_at, updated_at FROM batches
        WHERE kind = wanted AND pool_id = :pool_id AND status = 'completed' ORDER BY id DESC LIMIT :recent
    ) batches GROUP BY kind
    """
)


def facts_about(context: PoolContext, pool_id: str, kind: RequestKind, state: LidoState) -> Facts:
    """What an estimate of a request of this kind rests on; Lido's reports are asked for where they matter."""
    report = None
    if kind == RequestKind.UNSTAKE:
        with suppress(CallFailed, CallRefused):  # then the time of the report cannot be told
            report = last_report(context)
    threshold_wei, max_wait_sec = rhythm(context, kind)
    of_kind = (Request.pool_id == pool_id, Request.kind == kind, Request.status == RequestStatus.QUEUED)
    with transaction(context.sessions) as session:
        queued_wei, waited = session.execute(select(total_wei(), waited_sec()).where(*of_kind)).one()
        took = {row.kind: float(row.took) for row in session.execute(_TOOK, {"pool_id": pool_id, "recent": RECENT})}
        open_ = kind == RequestKind.UNSTAKE and session.scalar(
            select(Batch.id).where(*unstakes_under_way(pool_id)).limit(1)
        )
        now = session.scalars(select(func.clock_timestamp())).one()
    return Facts(
        now=now,
        state=state,
        window=Window(int(queued_wei), float(waited), threshold_wei, max_wait_sec),
        took_sec=took,
        report=report,
        batch_open=bool(open_),
    )
