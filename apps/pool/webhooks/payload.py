"""What is sent: the event as `GET /v1/events` shows it, and the headers that say what it is and whose."""

from collections.abc import Sequence
from datetime import datetime

from apps.clients.shapes import pool as shapes
from apps.clients.shapes.pool_states import RequestKind, RequestStatus
from apps.clients.shapes.webhooks import TEST_TYPE
from apps.common.idempotency import dumps
from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.pool.webhooks.models import WebhookDelivery
from apps.pool.webhooks.secrets import signature

SIGNATURE = "X-Staking-Signature"
NOBODY = "00000000-0000-7000-8000-000000000000"


def event_id(delivery_id: str, sequence: int | None) -> str:
    """The name of an event, the same at every endpoint and however often it is sent; a test is an event of its own."""
    return f"test-{delivery_id}" if sequence is None else f"event-{sequence}"


def body_of(event: shapes.Event) -> bytes:
    return dumps(dump(event)).encode()


def headers_of(delivery: WebhookDelivery, secrets: Sequence[str], body: bytes, now: datetime) -> dict[str, str]:
    """Signed anew at each sending, so that its time is that of the sending."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "Staking-Webhooks/1",
        SIGNATURE: signature(secrets, int(now.timestamp()), body),
        "X-Staking-Event-Id": event_id(delivery.id, delivery.sequence),
        "X-Staking-Event-Type": delivery.type,
        "X-Staking-Sequence": str(delivery.sequence or 0),
        "X-Staking-Delivery-Id": delivery.id,
        "X-Staking-Webhook-Id": delivery.webhook_id,
    }


def test_event(at: datetime) -> shapes.Event:
    """An event of a request that nobody made, with the sequence number 0, which no real one has."""
    request = shapes.Request(
        id=NOBODY,
        message_id="webhook-test",
        kind=RequestKind.STAKE,
        pool_id="test",
        user_id="test",
        amount_wei=ETHER,
        settled_wei=None,
        status=RequestStatus.QUEUED,
        reason=None,
        batch_id=None,
        withdrawals=[],
        transactions=[],
        next=None,
        timeline=[
            shapes.TimelineEntry(RequestStatus.RESERVING, at, None),
            shapes.TimelineEntry(RequestStatus.QUEUED, at, None),
        ],
        created_at=at,
        updated_at=at,
    )
    return shapes.Event(0, TEST_TYPE, NOBODY, request.user_id, request, at)
