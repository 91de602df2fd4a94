"""What changes webhooks from outside: made, changed, stopped, their secrets rotated, and what is sent to them again."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.orm import Session

from apps.clients.shapes import webhooks as shapes
from apps.clients.shapes.pool_states import WebhookStatus
from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import differing_fields, insert_once, raise_reused
from apps.common.wire import format_time, new_id
from apps.flow.lease import flow_event
from apps.flow.row import reason, seconds
from apps.pool.context import PoolContext
from apps.pool.errors import NotDeadLetter, TooManyWebhooks, WebhookNotEnabled
from apps.pool.feed import number_events
from apps.pool.models import FeedCounter, RequestEvent
from apps.pool.webhooks.destination import url_faults
from apps.pool.webhooks.fan_out import DELIVER_TASK, FAN_OUT_TASK, make_first_due
from apps.pool.webhooks.flow import disable
from apps.pool.webhooks.models import Webhook, WebhookCall, WebhookDelivery
from apps.pool.webhooks.reads import WebhookReads, shown_webhooks
from apps.pool.webhooks.secrets import Vault, fingerprint, new_secret

# Each event is sent to each endpoint; a BFF has a few.
MAX_WEBHOOKS = 32
# An event gets its number after its transaction has ended, which may be so long after its time.
LATE_EVENTS_SEC = 60.0
DEAD_LETTERS_AT_ONCE = 10_000

_QUIET = {"synchronize_session": False}
_RETRY = text(
    """
    UPDATE webhook_deliveries SET status = 'pending', attempt_count = 0, pending_since = now(),
        due_at = CASE WHEN sequence IS NULL THEN now() END
    WHERE id IN (
        SELECT id FROM webhook_deliveries WHERE webhook_id = :webhook_id AND status = 'dead_letter'
        AND (CAST(:delivery_id AS text) IS NULL OR id = :delivery_id) ORDER BY id LIMIT :most
    ) RETURNING request_id
    """
)


class Webhooks:
    """Owns the transactions of the endpoints about webhooks."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context
        self.reads = WebhookReads(context.readers)
        self._vault = Vault(context.settings.webhook_secret_keys)

    def create(self, wanted: shapes.NewWebhook) -> tuple[shapes.WebhookWithSecret, bool]:
        """Make an endpoint, which gets the events from now on; returns it with its secret, and whether this was a replay,
        which shows no secret. Raises `InvalidInput`, `TooManyWebhooks`, `MessageIdReused`, `NotConfigured`."""
        self._check_url(wanted.url)
        secret, new = wanted.secret or new_secret(), new_id()
        canonical = {
            "url": wanted.url,
            "types": ",".join(sorted(set(wanted.types))),
            "secret": fingerprint(wanted.secret, wanted.message_id) if wanted.secret else None,
        }
        values = {
            "url": wanted.url,
            "types": sorted(set(wanted.types)),
            "status": WebhookStatus.ENABLED,
            "sealed_secret": self._vault.seal(secret, new),
        }
        number_events(self.context.sessions)
        with transaction(self.context.sessions) as session:
            # One after another: else two could both be the last that there is room for.
            last = session.scalars(select(FeedCounter.last_sequence).with_for_update()).one()
            known = session.scalars(select(Webhook).where(Webhook.message_id == wanted.message_id)).one_or_none()
            if known is None:
                _check_room(session)
                row = insert_once(
                    session, Webhook, id=new, message_id=wanted.message_id, body=canonical, cursor=last, **values
                )
                assert row is not None  # whoever makes one holds the counter
                session.add(flow_event(row, "created", row.status, None))
                return _with_secret(shown_webhooks(session, [row])[0], secret), False
            return _replay(session, known, canonical), True

    def change(self, webhook_id: str, wanted: shapes.WebhookChange) -> shapes.Webhook:
        """Change where events are sent, or which. Raises `NotFound`, `InvalidInput`."""
        changes: dict[str, object] = {}
        if wanted.url is not None:
            self._check_url(wanted.url)
            changes["url"] = wanted.url
        if wanted.types is not None:
            changes["types"] = sorted(set(wanted.types))
        if not changes:
            raise InvalidInput(errors={"url": ["Give url, types, or both."]})
        return self._change(webhook_id, "changed", changes)

    def enable(self, webhook_id: str) -> shapes.Webhook:
        """Send again, from where it stopped; also at once where it is left alone because it failed. Raises `NotFound`."""
        changes = {
            "status": WebhookStatus.ENABLED,
            "reason": None,
            "parked_status": None,
            "attempts": 0,
            "failures": 0,
            "paused_until": None,
        }
        shown = self._change(webhook_id, "enabled", changes, _woken())
        self._wake()
        return shown

    def disable(self, webhook_id: str) -> shapes.Webhook:
        """Send nothing more; what is pending and what comes meanwhile goes out once it is enabled. Raises `NotFound`."""
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            if row.status != WebhookStatus.DISABLED:
                disable(session, row, reason("disabled_by_caller", "Somebody asked for it."))
                session.flush()
                session.refresh(row)
            return shown_webhooks(session, [row])[0]

    def delete(self, webhook_id: str) -> shapes.Webhook:
        """Send nothing more, ever, and forget the secrets. Raises `NotFound`."""
        gone = {"status": WebhookStatus.DELETED, "sealed_secret": "", "sealed_old_secret": None, "next_run_at": None}
        return self._change(webhook_id, "deleted", gone)

    def rotate_secret(self, webhook_id: str, wanted: shapes.SecretRotation) -> tuple[shapes.WebhookWithSecret, bool]:
        """Sign with another secret from now on, and for a while with the one before it as well; returns the endpoint with the
        secret, and whether this was a replay, which shows none.

        Where the answer to a rotation was lost, the next one replaces the secret that nobody has seen: the one that the
        receiver knows stays the old one. Raises `NotFound`, `NotConfigured`, `MessageIdReused`.
        """
        secret = wanted.secret or new_secret()
        given = fingerprint(wanted.secret, wanted.message_id) if wanted.secret else None
        asked = {"action": "rotate_secret", "secret": given, "overlap_sec": str(wanted.overlap_sec)}
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            if _known(session, row, wanted.message_id, asked) is not None:
                return _with_secret(shown_webhooks(session, [row])[0], None), True
            rotating = (
                row.old_secret_until is not None and row.old_secret_until > session.scalars(select(func.now())).one()
            )
            if not rotating:
                row.sealed_old_secret = row.sealed_secret
            row.sealed_secret = self._vault.seal(secret, row.id)
            row.old_secret_until = func.now() + seconds(float(wanted.overlap_sec))
            row.updated_at = func.clock_timestamp()
            session.add(flow_event(row, "secret_rotated", row.status, None))
            session.flush()
            session.refresh(row)
            return _with_secret(shown_webhooks(session, [row])[0], secret), False

    def test(self, webhook_id: str, wanted: shapes.WebhookTest) -> tuple[shapes.Delivery, bool]:
        """Send an event that tells of nothing; returns its delivery, and whether this was a replay. Raises `NotFound`,
        `WebhookNotEnabled`, `MessageIdReused`."""
        made = new_id()
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            known = _known(session, row, wanted.message_id, {"action": "test"}, made)
            if known is None:
                _check_enabled(row)
                session.add(WebhookDelivery(id=made, webhook_id=row.id, type=shapes.TEST_TYPE, due_at=func.now()))
                session.flush()
                _write(session, row, _woken())
        self._wake()
        return self.reads.delivery(webhook_id, made if known is None else str(known.delivery_id)), known is not None

    def replay(self, webhook_id: str, wanted: shapes.Replay) -> tuple[shapes.Webhook, bool]:
        """Send events of the feed again, those too that were never sent to this endpoint, as far as it asks for their type;
        returns the endpoint, and whether this call was itself a replay. Raises `NotFound`, `InvalidInput`,
        `WebhookNotEnabled`, `MessageIdReused`."""
        if (wanted.after_sequence is None) == (wanted.since is None):
            raise InvalidInput(errors={"after_sequence": ["Give after_sequence or since, and not both."]})
        after = wanted.after_sequence
        start = {"after_sequence": None if after is None else str(after), "since": format_time(wanted.since)}
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            known = _known(session, row, wanted.message_id, {"action": "replay", **start})
            if known is None:
                _check_enabled(row)
                if wanted.since is not None:
                    after = _last_before(session, wanted.since, row.cursor)
                _write(session, row, {"cursor": func.least(Webhook.cursor, after)})
                session.add(flow_event(row, "replayed", row.status, {"after_sequence": after}))
                session.flush()
                session.refresh(row)
            shown = shown_webhooks(session, [row])[0]
        self.context.publish(FAN_OUT_TASK, None)
        return shown, known is not None

    def retry(self, webhook_id: str, delivery_id: str | None = None) -> shapes.Webhook:
        """Ops: send dead letters again, one or all of them. Raises `NotFound`, `NotDeadLetter` of one that is none."""
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            given = {"webhook_id": row.id, "delivery_id": delivery_id, "most": DEAD_LETTERS_AT_ONCE}
            found = session.scalars(_RETRY, given).all()
            if not found and delivery_id is not None:
                raise NotDeadLetter
            make_first_due(session, row.id, sorted({name for name in found if name is not None}))
            if found and row.status == WebhookStatus.ENABLED:
                _write(session, row, _woken())
            shown = shown_webhooks(session, [row])[0]
        self._wake()
        return shown

    def _change(
        self, webhook_id: str, event: str, changes: Mapping[str, object], besides: Mapping[str, object] | None = None
    ) -> shapes.Webhook:
        """Change an endpoint, and what goes with that; the same again changes nothing."""
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            if any(getattr(row, name) != value for name, value in changes.items()):
                _write(session, row, {**changes, **(besides or {})})
                session.refresh(row)
                session.add(flow_event(row, event, row.status, None))
            return shown_webhooks(session, [row])[0]

    def _check_url(self, url: str) -> None:
        faults = url_faults(url, allow_private=self.context.settings.webhook_allow_private)
        if faults:
            raise InvalidInput(errors={"url": faults})

    def _wake(self) -> None:
        self.context.publish(DELIVER_TASK, None)


def _locked(session: Session, webhook_id: str) -> Webhook:
    row = session.scalars(select(Webhook).where(Webhook.id == webhook_id).with_for_update()).one_or_none()
    if row is None or row.status == WebhookStatus.DELETED:
        raise NotFound("There is no webhook with this id.")
    return row


def _write(session: Session, row: Webhook, changes: Mapping[str, object]) -> None:
    """Change columns of a row that the caller has locked; its lease is left to the worker that holds it."""
    values = {"updated_at": func.clock_timestamp(), **changes}
    session.execute(update(Webhook).where(Webhook.id == row.id).values(values), execution_options=_QUIET)


def _woken() -> dict[str, ColumnElement[object]]:
    """Columns of an endpoint that has something to do now, also when a worker is just about to leave it."""
    return {"wakes": Webhook.wakes + 1, "next_run_at": func.greatest(func.now(), Webhook.paused_until)}


def _known(
    session: Session, row: Webhook, message_id: str, asked: Mapping[str, str | None], delivery_id: str | None = None
) -> WebhookCall | None:
    """What was asked under this message_id before; None where that is new, and known from now on. Raises
    `MessageIdReused`."""
    body = {"webhook_id": row.id, **asked}
    values = {"message_id": message_id, "webhook_id": row.id, "body": body, "delivery_id": delivery_id}
    if insert_once(session, WebhookCall, **values) is not None:
        return None
    known = session.get_one(WebhookCall, message_id)
    fields = differing_fields(body, known.body)
    if fields:
        raise_reused(fields)
    return known


def _check_enabled(row: Webhook) -> None:
    if row.status != WebhookStatus.ENABLED:
        raise WebhookNotEnabled(f"The webhook is {row.status}; enable it first.")


def _check_room(session: Session) -> None:
    there = session.scalars(select(func.count()).where(Webhook.status != WebhookStatus.DELETED)).one()
    if there >= MAX_WEBHOOKS:
        raise TooManyWebhooks(f"There are {there} webhooks, as many as there may be; delete one first.")


def _replay(session: Session, row: Webhook, canonical: Mapping[str, str | None]) -> shapes.WebhookWithSecret:
    fields = differing_fields(canonical, row.body)
    if fields:
        raise_reused(fields)
    if row.status == WebhookStatus.DELETED:
        raise NotFound("The webhook that was made under this message_id was deleted.")
    return _with_secret(shown_webhooks(session, [row])[0], None)


def _with_secret(shown: shapes.Webhook, secret: str | None) -> shapes.WebhookWithSecret:
    return shapes.WebhookWithSecret(**vars(shown), secret=secret)


def _last_before(session: Session, since: datetime, until: int) -> int:
    """The last sequence number before a time, by halving: numbers have no gaps, and times rise but for `LATE_EVENTS_SEC`."""
    moment = since.timestamp() - LATE_EVENTS_SEC
    low, high = 0, until  # what is numbered low came before it; the one behind high did not, or there is none
    while low < high:
        middle = (low + high + 1) // 2
        at = session.scalars(select(RequestEvent.created_at).where(RequestEvent.sequence == middle)).one()
        low, high = (middle, high) if at.timestamp() < moment else (low, middle - 1)
    return low
