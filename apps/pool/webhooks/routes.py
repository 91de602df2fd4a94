"""HTTP face of webhooks: parse and answer, nothing else."""

from typing import TypeVar

from flask import current_app

from apps.clients.shapes import webhooks as shapes
from apps.common.api import Blueprint
from apps.common.errors import NotConfigured, NotFound
from apps.common.idempotency import REPLAY_HEADER
from apps.common.shapes import schema_of
from apps.common.wire import BodySchema, QuerySchema
from apps.pool.errors import NotDeadLetter, TooManyWebhooks, WebhookNotEnabled
from apps.pool.webhooks.service import Webhooks

Shape = TypeVar("Shape")
Made = tuple[Shape, int, dict[str, str]]

blueprint = Blueprint(
    "webhooks", __name__, url_prefix="/v1", description="Events of the feed, sent to endpoints of yours."
)


@blueprint.post("/webhooks")
@blueprint.refuses(NotConfigured, NotFound, TooManyWebhooks)
@blueprint.arguments(schema_of(shapes.NewWebhook, BodySchema))
@blueprint.response(201, schema_of(shapes.WebhookWithSecret))
@blueprint.alt_response(200, schema=schema_of(shapes.WebhookWithSecret), description="A replay; the secret is null.")
def create_webhook(body: shapes.NewWebhook) -> Made[shapes.WebhookWithSecret]:
    """Have events sent to an address from now on. The secret that signs them is shown in this answer only."""
    return _made(*_webhooks().create(body))


@blueprint.get("/webhooks")
@blueprint.response(200, schema_of(shapes.WebhookPage))
def list_webhooks() -> shapes.WebhookPage:
    """All webhooks, newest first, with what is pending and what was given up."""
    return _webhooks().reads.webhooks()


@blueprint.get("/webhooks/<webhook_id>")
@blueprint.response(200, schema_of(shapes.Webhook))
def get_webhook(webhook_id: str) -> shapes.Webhook:
    """One webhook."""
    return _webhooks().reads.webhook(webhook_id)


@blueprint.post("/webhooks/<webhook_id>/change")
@blueprint.arguments(schema_of(shapes.WebhookChange, BodySchema))
@blueprint.response(200, schema_of(shapes.Webhook))
def change_webhook(body: shapes.WebhookChange, webhook_id: str) -> shapes.Webhook:
    """Change where events are sent, or which. The secret stays."""
    return _webhooks().change(webhook_id, body)


@blueprint.post("/webhooks/<webhook_id>/disable")
@blueprint.response(200, schema_of(shapes.Webhook))
def disable_webhook(webhook_id: str) -> shapes.Webhook:
    """Send nothing for now. Nothing is lost: it goes on from where it stopped."""
    return _webhooks().disable(webhook_id)


@blueprint.post("/webhooks/<webhook_id>/enable")
@blueprint.response(200, schema_of(shapes.Webhook))
def enable_webhook(webhook_id: str) -> shapes.Webhook:
    """Send again; also at once, where it is left alone because it failed."""
    return _webhooks().enable(webhook_id)


@blueprint.post("/webhooks/<webhook_id>/delete")
@blueprint.response(200, schema_of(shapes.Webhook))
def delete_webhook(webhook_id: str) -> shapes.Webhook:
    """Send nothing any more, and forget the secrets. Afterwards it is not found."""
    return _webhooks().delete(webhook_id)


@blueprint.post("/webhooks/<webhook_id>/rotate-secret")
@blueprint.refuses(NotConfigured)
@blueprint.arguments(schema_of(shapes.SecretRotation, BodySchema))
@blueprint.response(201, schema_of(shapes.WebhookWithSecret))
@blueprint.alt_response(200, schema=schema_of(shapes.WebhookWithSecret), description="A replay; the secret is null.")
def rotate_webhook_secret(body: shapes.SecretRotation, webhook_id: str) -> Made[shapes.WebhookWithSecret]:
    """Sign with another secret, shown in this answer only; for a while with the one before it as well."""
    return _made(*_webhooks().rotate_secret(webhook_id, body))


@blueprint.post("/webhooks/<webhook_id>/test")
@blueprint.refuses(WebhookNotEnabled)
@blueprint.arguments(schema_of(shapes.WebhookTest, BodySchema))
@blueprint.response(201, schema_of(shapes.Delivery))
@blueprint.alt_response(200, schema=schema_of(shapes.Delivery), description="A replay.")
def test_webhook(body: shapes.WebhookTest, webhook_id: str) -> Made[shapes.Delivery]:
    """Send an event of type webhook.test, whatever types the webhook asks for."""
    return _made(*_webhooks().test(webhook_id, body))


@blueprint.post("/webhooks/<webhook_id>/replay")
@blueprint.refuses(WebhookNotEnabled)
@blueprint.arguments(schema_of(shapes.Replay, BodySchema))
@blueprint.response(201, schema_of(shapes.Webhook))
@blueprint.alt_response(200, schema=schema_of(shapes.Webhook), description="A replay of this call.")
def replay_webhook(body: shapes.Replay, webhook_id: str) -> Made[shapes.Webhook]:
    """Send the feed's events again after a sequence number, or since a time; each under the event id that it had."""
    return _made(*_webhooks().replay(webhook_id, body))


@blueprint.get("/webhooks/<webhook_id>/deliveries")
@blueprint.arguments(schema_of(shapes.DeliveriesQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(shapes.DeliveryPage))
def list_deliveries(query: shapes.DeliveriesQuery, webhook_id: str) -> shapes.DeliveryPage:
    """Deliveries, newest first, each with its attempts; with `status` the pending ones, or the dead letters."""
    return _webhooks().reads.deliveries(webhook_id, query)


@blueprint.get("/webhooks/<webhook_id>/deliveries/<delivery_id>")
@blueprint.response(200, schema_of(shapes.Delivery))
def get_delivery(webhook_id: str, delivery_id: str) -> shapes.Delivery:
    """One delivery with its attempts."""
    return _webhooks().reads.delivery(webhook_id, delivery_id)


@blueprint.post("/webhooks/<webhook_id>/deliveries/retry")
@blueprint.ops
@blueprint.response(200, schema_of(shapes.Webhook))
def retry_dead_letters(webhook_id: str) -> shapes.Webhook:
    """Ops: send the webhook's dead letters again, ten thousand a call."""
    return _webhooks().retry(webhook_id)


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/retry")
@blueprint.ops
@blueprint.refuses(NotDeadLetter)
@blueprint.response(200, schema_of(shapes.Webhook))
def retry_dead_letter(webhook_id: str, delivery_id: str) -> shapes.Webhook:
    """Ops: send one dead letter again."""
    return _webhooks().retry(webhook_id, delivery_id)


def _made(made: Shape, replayed: bool) -> Made[Shape]:  # noqa: FBT001
    return (made, 200, {REPLAY_HEADER: "true"}) if replayed else (made, 201, {})


def _webhooks() -> Webhooks:
    found: Webhooks = current_app.extensions["webhooks"]
    return found
