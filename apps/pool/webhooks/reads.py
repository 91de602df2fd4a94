"""What is shown of webhooks and their deliveries. Nothing here writes, and no secret is read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.clients.shapes import webhooks as shapes
from apps.clients.shapes.pool_states import DeliveryStatus, WebhookStatus
from apps.common.database import Sessions, one_of
from apps.common.errors import NotFound
from apps.common.wire import cut
from apps.pool.rendering import shown_reason
from apps.pool.webhooks.models import Webhook, WebhookAttempt, WebhookDelivery
from apps.pool.webhooks.payload import event_id

ATTEMPTS_SHOWN = 20
_OPEN = (DeliveryStatus.PENDING, DeliveryStatus.DEAD_LETTER)


class WebhookReads:
    def __init__(self, readers: Sessions) -> None:
        self._readers = readers

    def webhooks(self) -> shapes.WebhookPage:
        """All of them, newest first."""
        with self._readers() as session:
            rows = session.scalars(
                select(Webhook).where(Webhook.status != WebhookStatus.DELETED).order_by(Webhook.id.desc())
            ).all()
            return shapes.WebhookPage(shown_webhooks(session, rows), None)

    def webhook(self, webhook_id: str) -> shapes.Webhook:
        with self._readers() as session:
            return shown_webhooks(session, [_existing(session, webhook_id)])[0]

    def deliveries(self, webhook_id: str, query: shapes.DeliveriesQuery) -> shapes.DeliveryPage:
        """Newest first; the cursor is the last id shown."""
        wanted = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
        if query.status is not None:
            wanted = wanted.where(WebhookDelivery.status == query.status)
        if query.after is not None:
            wanted = wanted.where(WebhookDelivery.id < query.after)
        with self._readers() as session:
            _existing(session, webhook_id)
            rows = session.scalars(wanted.order_by(WebhookDelivery.id.desc()).limit(query.limit + 1)).all()
            items = _shown_deliveries(session, rows)
        return shapes.DeliveryPage(*cut(items, query.limit, lambda item: item.id))

    def delivery(self, webhook_id: str, delivery_id: str) -> shapes.Delivery:
        with self._readers() as session:
            _existing(session, webhook_id)
            row = session.get(WebhookDelivery, delivery_id)
            if row is None or row.webhook_id != webhook_id:
                raise NotFound("There is no delivery with this id.")
            return _shown_deliveries(session, [row])[0]


def shown_webhooks(session: Session, rows: Sequence[Webhook]) -> list[shapes.Webhook]:
    """Endpoints as callers see them: two statements, however many."""
    counted = (
        select(
            WebhookDelivery.webhook_id,
            WebhookDelivery.status,
            func.count().label("number"),
            func.min(WebhookDelivery.pending_since).label("oldest"),
        )
        .where(one_of(WebhookDelivery.webhook_id, [row.id for row in rows]), WebhookDelivery.status.in_(_OPEN))
        .group_by(WebhookDelivery.webhook_id, WebhookDelivery.status)
    )
    found = {(row.webhook_id, row.status): (row.number, row.oldest) for row in session.execute(counted)}
    now = session.scalars(select(func.now())).one()
    shown = []
    for row in rows:
        pending, oldest = found.get((row.id, DeliveryStatus.PENDING), (0, None))
        rotating = row.old_secret_until is not None and row.old_secret_until > now
        paused = row.paused_until is not None and row.paused_until > now
        shown.append(
            shapes.Webhook(
                id=row.id,
                message_id=row.message_id,
                url=row.url,
                types=list(row.types),
                status=WebhookStatus(row.status),
                reason=shown_reason(row.reason),
                sent_to_sequence=row.cursor,
                pending=pending,
                oldest_pending_at=oldest,
                dead_letters=found.get((row.id, DeliveryStatus.DEAD_LETTER), (0, None))[0],
                failures=row.failures,
                paused_until=row.paused_until if paused else None,
                old_secret_until=row.old_secret_until if rotating else None,
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
        )
    return shown


def _existing(session: Session, webhook_id: str) -> Webhook:
    row = session.get(Webhook, webhook_id)
    if row is None or row.status == WebhookStatus.DELETED:
        raise NotFound("There is no webhook with this id.")
    return row


def _shown_deliveries(session: Session, rows: Sequence[WebhookDelivery]) -> list[shapes.Delivery]:
    attempts = _attempts(session, [row.id for row in rows])
    return [
        shapes.Delivery(
            id=row.id,
            webhook_id=row.webhook_id,
            event_id=event_id(row.id, row.sequence),
            type=row.type,
            sequence=row.sequence,
            pool_request_id=row.request_id,
            status=DeliveryStatus(row.status),
            attempt_count=row.attempt_count,
            next_attempt_at=row.due_at,
            attempts=attempts[row.id],
            created_at=row.created_at,
            delivered_at=row.delivered_at,
        )
        for row in rows
    ]


def _attempts(session: Session, delivery_ids: Sequence[str]) -> Mapping[str, list[shapes.DeliveryAttempt]]:
    """The latest sendings of each delivery, newest first."""
    place = func.row_number().over(partition_by=WebhookAttempt.delivery_id, order_by=WebhookAttempt.id.desc())
    ranked = (
        select(WebhookAttempt, place.label("place")).where(one_of(WebhookAttempt.delivery_id, delivery_ids)).subquery()
    )
    latest = select(ranked).where(ranked.c.place <= ATTEMPTS_SHOWN).order_by(ranked.c.delivery_id, ranked.c.place)
    found: dict[str, list[shapes.DeliveryAttempt]] = defaultdict(list)
    for row in session.execute(latest):
        found[row.delivery_id].append(
            shapes.DeliveryAttempt(row.at, row.duration_ms, row.answer_status, shown_reason(row.error))
        )
    return found
