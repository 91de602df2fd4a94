"""The feed turned into deliveries: for each endpoint one of each event that it asks for, in the feed's order.

It reads what has its number, so the transactions that events tell of know nothing of webhooks and pay nothing for them.
An endpoint's cursor moves in the transaction that makes the deliveries, under the lock of the endpoint's row; so each
sequence number is turned once, and again only where a replay has set the cursor back.
"""

from collections.abc import Sequence

from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from apps.clients.shapes.pool_states import RequestStatus, WebhookStatus
from apps.clients.shapes.webhooks import EVERY
from apps.common.crashpoint import crashpoint
from apps.common.database import Sessions, transaction
from apps.common.wire import new_id
from apps.pool.context import PoolContext
from apps.pool.models import FeedCounter, RequestEvent
from apps.pool.webhooks.models import Webhook

FAN_OUT_TASK = "tasks.webhooks.fan_out"
DELIVER_TASK = "tasks.webhooks.deliver"
# Events of the feed that one transaction turns into deliveries of one endpoint.
EVENTS_AT_ONCE = 2_000

_CHOSEN = text(
    """
    SELECT types, cursor, (SELECT last_sequence FROM feed_counter) AS last FROM webhooks
    WHERE id = :webhook_id AND status = 'enabled' FOR UPDATE
    """
)
# A delivery that a replay comes upon is pending again from now on, unless it is still.
_MAKE = text(
    """
    INSERT INTO webhook_deliveries AS d (id, webhook_id, sequence, request_id, type)
    SELECT n.id, :webhook_id, n.sequence, n.request_id, n.type
    FROM unnest(CAST(:ids AS text[]), CAST(:sequences AS bigint[]), CAST(:request_ids AS text[]), CAST(:types AS text[]))
        AS n (id, sequence, request_id, type)
    ON CONFLICT (webhook_id, sequence) DO UPDATE
    SET status = 'pending', attempt_count = 0, pending_since = now(), delivered_at = NULL WHERE d.status <> 'pending'
    """
)
_MOVE_ON = text(
    """
    UPDATE webhooks SET cursor = :until, wakes = wakes + CASE WHEN :made THEN 1 ELSE 0 END,
        next_run_at = CASE WHEN :made THEN greatest(now(), paused_until) ELSE next_run_at END
    WHERE id = :webhook_id
    """
)
# Of each request the first pending event is due, and no other.
_FIRST_OF_EACH = text(
    """
    UPDATE webhook_deliveries d SET due_at = CASE WHEN d.sequence = f.first THEN now() END
    FROM (
        SELECT request_id, min(sequence) AS first FROM webhook_deliveries
        WHERE webhook_id = :webhook_id AND status = 'pending' AND request_id = ANY(:request_ids) GROUP BY request_id
    ) f
    WHERE d.webhook_id = :webhook_id AND d.status = 'pending' AND d.request_id = f.request_id
    AND (d.due_at IS NOT NULL) <> (d.sequence = f.first)
    """
)


def is_behind(sessions: Sessions) -> bool:
    """Whether there are numbered events that are no deliveries yet of an endpoint that is enabled."""
    with sessions() as session:
        return session.scalar(select(_behind().exists())) is True


def fan_out(context: PoolContext) -> int:
    """Turn what is new in the feed into deliveries of every endpoint, and hint at them; returns how many."""
    with context.readers() as session:
        ids = session.scalars(_behind()).all()
    made = 0
    for webhook_id in ids:
        while True:
            with transaction(context.sessions) as session:
                found = _fan_out_piece(session, webhook_id)
                crashpoint("webhook.fanned_out")
            if found is None:
                break
            made += found
            if found:
                context.publish(DELIVER_TASK, None)
    return made


def make_first_due(session: Session, webhook_id: str, request_ids: Sequence[str]) -> None:
    """Make the first pending delivery of each of these requests due, and those behind it wait. The caller holds the
    endpoint's row."""
    if request_ids:
        session.execute(_FIRST_OF_EACH, {"webhook_id": webhook_id, "request_ids": list(request_ids)})


def _fan_out_piece(session: Session, webhook_id: str) -> int | None:
    """Turn the next events for one endpoint; None where it has none, or is not enabled any more."""
    row = session.execute(_CHOSEN, {"webhook_id": webhook_id}).one_or_none()
    if row is None or row.cursor >= row.last:
        return None
    until = min(row.last, row.cursor + EVENTS_AT_ONCE)
    told = select(RequestEvent.sequence, RequestEvent.request_id, RequestEvent.status)
    told = told.where(RequestEvent.sequence > row.cursor, RequestEvent.sequence <= until).order_by(
        RequestEvent.sequence
    )
    events = [(event, RequestStatus(event.status).event_type) for event in session.execute(told)]
    wanted = [(event, kind) for event, kind in events if EVERY in row.types or kind in row.types]
    if wanted:
        made = {
            "webhook_id": webhook_id,
            "ids": [new_id() for _ in wanted],
            "sequences": [event.sequence for event, _ in wanted],
            "request_ids": [event.request_id for event, _ in wanted],
            "types": [kind for _, kind in wanted],
        }
        session.execute(_MAKE, made)
        make_first_due(session, webhook_id, sorted({event.request_id for event, _ in wanted}))
    session.execute(_MOVE_ON, {"webhook_id": webhook_id, "until": until, "made": bool(wanted)})
    return len(wanted)


def _behind() -> Select[str]:
    return select(Webhook.id).where(
        Webhook.status == WebhookStatus.ENABLED, Webhook.cursor < select(FeedCounter.last_sequence).scalar_subquery()
    )
