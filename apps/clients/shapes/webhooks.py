"""Webhooks: where the events of the feed are sent, by whose secret they are signed, and what became of each sending."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery, Reason, one_of
from apps.clients.shapes.fields import text_of
from apps.clients.shapes.pool_states import DeliveryStatus, RequestStatus, WebhookStatus
from apps.common import wire
from apps.common.shapes import StrictInteger, Time, Whole, described, given

MAX_URL = 2_000
MIN_SECRET, MAX_SECRET = 24, 128
MAX_OVERLAP_SEC = 7 * 86_400
OVERLAP_SEC = 86_400

TEST_TYPE = "webhook.test"
EVERY = "*"  # every event, those of later releases too
# What an endpoint may ask for; a test event comes without being asked for.
FILTERS = (EVERY, *(status.event_type for status in RequestStatus))

_SECRET = ma.validate.Regexp(
    rf"[!-~]{{{MIN_SECRET},{MAX_SECRET}}}\Z",
    error=f"Must be {MIN_SECRET} to {MAX_SECRET} visible ASCII characters; leave it out to have one made.",
)


def _filters_field(**options: object) -> ma.fields.List[str]:
    several = ma.validate.Length(1, len(FILTERS))
    return ma.fields.List(ma.fields.String(validate=one_of(FILTERS)), validate=several, **options)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class NewWebhook:
    """An endpoint to send events to, once per `message_id`. It gets those that come from now on, of the `types` named or
    all; without a `secret` one is made."""

    message_id: str = given(wire.message_id_field)
    url: str = given(ma.fields.String, required=True, validate=ma.validate.Length(1, MAX_URL))
    types: list[str] = given(_filters_field, load_default=(EVERY,))
    secret: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=_SECRET)


@dataclass(frozen=True, kw_only=True)
class WebhookChange:
    """What is to be different from now on; what is left out stays."""

    url: str | None = given(ma.fields.String, load_default=None, validate=ma.validate.Length(1, MAX_URL))
    types: list[str] | None = given(_filters_field, load_default=None)


@dataclass(frozen=True, kw_only=True)
class WebhookTest:
    """A test event to send, once per `message_id`."""

    message_id: str = given(wire.message_id_field)


@dataclass(frozen=True, kw_only=True)
class SecretRotation:
    """Another secret, once per `message_id`; one is made where none is given. `overlap_sec`: how long deliveries are signed
    with the secret of before as well; 0 ends it at once."""

    message_id: str = given(wire.message_id_field)
    secret: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=_SECRET)
    overlap_sec: int = given(StrictInteger, load_default=OVERLAP_SEC, validate=ma.validate.Range(0, MAX_OVERLAP_SEC))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """From where on events are sent again, once per `message_id`: after a sequence number, or since a time; one of the two."""

    message_id: str = given(wire.message_id_field)
    after_sequence: int | None = given(StrictInteger, load_default=None, validate=ma.validate.Range(0, 10**18 - 1))
    since: datetime | None = given(wire.TimeField, load_default=None)


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An endpoint. `reason`: why it is not enabled. `sent_to_sequence`: up to where the feed has been turned into
    deliveries of it. `failures`: tries in a row that failed; `paused_until`: until when nothing is sent because of them."""

    id: str
    message_id: str
    url: str
    types: list[str]
    status: Annotated[WebhookStatus, text_of(WebhookStatus)]
    reason: Reason | None
    sent_to_sequence: Whole
    pending: Whole
    oldest_pending_at: Time | None
    dead_letters: Whole
    failures: Whole
    paused_until: Time | None
    old_secret_until: Time | None = described("Until when deliveries carry a second signature; null: one secret.")
    created_at: Time
    updated_at: Time


@dataclass(frozen=True, kw_only=True)
class WebhookWithSecret(Webhook):
    """An endpoint with its secret, which is shown once: when it is made, and never again."""

    secret: str | None = described("Null in the answer of a replay.")


@dataclass(frozen=True)
class WebhookPage:
    """All endpoints, newest first; there are never so many that a second page is needed."""

    items: list[Webhook]
    next: str | None


@dataclass(frozen=True)
class DeliveryAttempt:
    """One sending of a delivery. `answer_status` is null where no answer came, `error` where it was taken."""

    at: Time
    duration_ms: Whole
    answer_status: Whole | None
    error: Reason | None


@dataclass(frozen=True)
class Delivery:
    """An event on its way to an endpoint. `next_attempt_at` is null once it has ended, and while an earlier event of the
    same request has not; of a test, so are sequence and request. `attempts`: the latest twenty, newest first."""

    id: str
    webhook_id: str
    event_id: str
    type: str
    sequence: Whole | None
    pool_request_id: str | None
    status: Annotated[DeliveryStatus, text_of(DeliveryStatus)]
    attempt_count: Whole
    next_attempt_at: Time | None
    attempts: list[DeliveryAttempt]
    created_at: Time
    delivered_at: Time | None


@dataclass(frozen=True)
class DeliveryPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[Delivery]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class DeliveriesQuery(IdPageQuery):
    """Which deliveries of an endpoint to list; all where nothing more is said."""

    status: str | None = given(ma.fields.String, load_default=None, validate=one_of(tuple(DeliveryStatus)))
