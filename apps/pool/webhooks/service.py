"""What changes webhooks from outside: made, changed, stopped, their secrets rotated, and what is sent to them again."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.orm import Session

from apps.clients.shapes import webhooks as shapes
from apps.clients.shapes.pool_states import WebhookStatus
from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import differing_fields, insert_once, raise_reused
from apps.common.wire import new_id
from apps.flow.lease import flow_event
from apps.flow.row import reason, seconds
from apps.pool.context import PoolContext
from apps.pool.errors import NotDeadLetter, TooManyWebhooks, WebhookNotEnabled
from apps.pool.feed import number_events
from apps.pool.models import FeedCounter, RequestEvent
from apps.pool.webhooks.destination import url_faults
from apps.pool.webhooks.fan_out import DELIVER_TASK, FAN_OUT_TASK, make_first_due
from apps.pool.webhooks.flow import disable
from apps.pool.webhooks.models import Webhook, WebhookDelivery
from apps.pool.webhooks.reads import WebhookReads, shown_webhooks
from apps.pool.webhooks.secrets import Vault, fingerprint, new_secret

# Each event is sent to each endpoint; a BFF has a few.
MAX_WEBHOOKS = 32
# An event gets its number after its transaction has ended, which may be so long after its time.
LATE_EVENTS = timedelta(seconds=60)
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
            **_woken(),
        }
        shown = self._change(webhook_id, "enabled", changes)
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

    def rotate_secret(self, webhook_id: str, wanted: shapes.SecretRotation) -> shapes.WebhookWithSecret:
        """Sign with another secret from now on, and for a while with the one before it as well.

        Where the answer to a rotation was lost, the next one replaces the secret that nobody has seen: the one that the
        receiver knows stays the old one. Raises `NotFound`, `NotConfigured`.
        """
        secret = wanted.secret or new_secret()
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
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
            return _with_secret(shown_webhooks(session, [row])[0], secret)

    def test(self, webhook_id: str) -> shapes.Delivery:
        """Send an event that tells of nothing. Raises `NotFound`, `WebhookNotEnabled`."""
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            _check_enabled(row)
            delivery = WebhookDelivery(id=new_id(), webhook_id=row.id, type=shapes.TEST_TYPE, due_at=func.now())
            session.add(delivery)
            session.flush()
            _write(session, row, _woken())
        self._wake()
        return self.reads.delivery(webhook_id, delivery.id)

    def replay(self, webhook_id: str, wanted: shapes.Replay) -> shapes.Webhook:
        """Send events of the feed again, those too that were never sent to this endpoint, as far as it asks for their type.
        Raises `NotFound`, `InvalidInput`, `WebhookNotEnabled`."""
        if (wanted.after_sequence is None) == (wanted.since is None):
            raise InvalidInput(errors={"after_sequence": ["Give after_sequence or since, and not both."]})
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            _check_enabled(row)
            after = wanted.after_sequence
            if after is None:
                assert wanted.since is not None
                after = _last_before(session, wanted.since - LATE_EVENTS, row.cursor)
            _write(session, row, {"cursor": func.least(Webhook.cursor, after)})
            session.add(flow_event(row, "replayed", row.status, {"after_sequence": after}))
            session.flush()
            session.refresh(row)
            shown = shown_webhooks(session, [row])[0]
        self.context.publish(FAN_OUT_TASK, None)
        return shown

    def retry(self, webhook_id: str, delivery_id: str | None = None) -> shapes.Retried:
        """Ops: send dead letters again, one or all of them. Raises `NotFound`, `NotDeadLetter` of one that is none."""
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            given = {"webhook_id": row.id, "delivery_id": delivery_id, "most": DEAD_LETTERS_AT_ONCE}
            found = session.scalars(_RETRY, given).all()
            if not found and delivery_id is not None:
                raise NotDeadLetter
            make_first_due(session, row.id, sorted({name for name in found if name is not None}))
            if row.status == WebhookStatus.ENABLED:
                _write(session, row, _woken())
        self._wake()
        return shapes.Retried(len(found))

    def _change(self, webhook_id: str, event: str, changes: Mapping[str, object]) -> shapes.Webhook:
        with transaction(self.context.sessions) as session:
            row = _locked(session, webhook_id)
            _write(session, row, changes)
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


def _last_before(session: Session, moment: datetime, until: int) -> int:
    """The last sequence number before a time, by halving: numbers have no gaps, and their times rise but for `LATE_EVENTS`."""
    low, high = 0, until  # what is numbered low came before it; the one behind high did not, or there is none
    while low < high:
        middle = (low + high + 1) // 2
        at = session.scalars(select(RequestEvent.created_at).where(RequestEvent.sequence == middle)).one()
        low, high = (middle, high) if at < moment else (low, middle - 1)
    return low
