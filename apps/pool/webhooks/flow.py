"""An endpoint as a flow: whoever leases its row sends what is due to it, a few at a time, and writes what came of it.

A sending is no effect that could be asked for afterwards: where its outcome was not written, it is sent again, under the
same event id. So each event comes at least once. One worker at a time sends to an endpoint, and of each request only the
first event that is pending is due: so they come in order. What an endpoint does to a sending costs itself time, and
the worker so much as `retrying` and `sending` allow.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from random import SystemRandom
from typing import TypedDict

import structlog
from sqlalchemy import ColumnElement, case, func, null, select, text, update
from sqlalchemy.orm import Session

from apps.clients.shapes.pool import Event
from apps.clients.shapes.pool_states import DeliveryStatus, WebhookStatus
from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from apps.flow import runner
from apps.flow.lease import flow_event, reread, write_fenced
from apps.flow.outcome import Outcome, Wait
from apps.flow.row import Reason, seconds
from apps.flow.runner import Flow
from apps.pool.context import PoolContext
from apps.pool.models import RequestEvent
from apps.pool.rendering import render_events
from apps.pool.webhooks import retrying
from apps.pool.webhooks.fan_out import DELIVER_TASK, make_first_due
from apps.pool.webhooks.models import Webhook, WebhookDelivery
from apps.pool.webhooks.payload import body_of, headers_of, test_event
from apps.pool.webhooks.retrying import Health
from apps.pool.webhooks.secrets import Vault
from apps.pool.webhooks.sending import TOTAL_SEC, Answer, Line

log = structlog.get_logger(__name__)

# Deliveries of one endpoint that are under way at the same time.
IN_FLIGHT = 8
# A worker begins no further round of an endpoint after so long: others are waiting.
BURST_SEC = 5.0
# Longer than a burst and the round that was begun in it, a slow resolver included.
LEASE_SEC = 60.0

_SPREAD = SystemRandom()

_QUIET = {"synchronize_session": False}
_WRITE = text(
    """
    UPDATE webhook_deliveries d
    SET status = r.status, attempt_count = d.attempt_count + 1, due_at = now() + make_interval(secs => r.pause_sec),
        delivered_at = CASE WHEN r.status = 'delivered' THEN clock_timestamp() END
    FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS r (id text, status text, pause_sec float8)
    WHERE d.id = r.id AND d.status = 'pending'
    """
)
_NOTE = text(
    """
    INSERT INTO webhook_attempts (delivery_id, at, duration_ms, answer_status, error)
    SELECT r.id, clock_timestamp() - make_interval(secs => r.ago_sec), r.duration_ms, r.answer_status, r.error
    FROM jsonb_to_recordset(CAST(:results AS jsonb))
        AS r (id text, ago_sec float8, duration_ms int, answer_status int, error jsonb)
    """
)


class _Outcome(TypedDict):
    """What is written of a sending."""

    id: str
    status: DeliveryStatus
    ends: bool
    pause_sec: float | None
    ago_sec: float
    duration_ms: int
    answer_status: int | None
    error: Reason | None


@dataclass(frozen=True)
class Due:
    """A delivery to send now, with its body; the database's time, and for how long it has been pending."""

    delivery: WebhookDelivery
    body: bytes
    now: datetime
    age_sec: float


@dataclass(frozen=True)
class Sent:
    """A delivery, what its sending came to, and when it began, by this process's steady clock."""

    due: Due
    answer: Answer
    began: float


class WebhookFlow(Flow[Webhook]):
    """Sends an endpoint its due deliveries, in rounds, until none is left, it fails, or its turn is over."""

    name = "webhook"
    model = Webhook
    task = DELIVER_TASK
    rows_per_message = 1

    def __init__(self, context: PoolContext, *, total_sec: float = TOTAL_SEC) -> None:
        super().__init__(context.sessions, context.publish, LEASE_SEC)
        self.context = context
        self._vault = Vault(context.settings.webhook_secret_keys)
        self._total_sec = total_sec

    def step(self, row: Webhook) -> Outcome:
        until = time.monotonic() + BURST_SEC
        lines: list[Line] = []
        url = row.url
        try:
            while True:
                row = reread(self.sessions, row)
                if row.url != url:
                    _close(lines)
                    url = row.url
                health = Health(row.failures)
                due = self._due(row, 1 if health.is_unwell else IN_FLIGHT)
                if not due or row.status != WebhookStatus.ENABLED:
                    return self._rest(row)
                lines += [self._line(row) for _ in range(len(due) - len(lines))]
                sent = self._send(row, due, lines)
                crashpoint("webhook.sent")
                pause_sec = self._write(row, health, sent)
                if pause_sec or time.monotonic() > until:
                    return self._rest(row)
        finally:
            _close(lines)

    def _due(self, row: Webhook, most: int) -> list[Due]:
        """Deliveries whose time has come, the longest due first, with what is to be sent of each."""
        age = func.extract("epoch", func.now() - WebhookDelivery.pending_since)
        chosen = (
            select(WebhookDelivery, func.now(), age)
            .where(WebhookDelivery.webhook_id == row.id, WebhookDelivery.due_at <= func.now())
            .order_by(WebhookDelivery.due_at, WebhookDelivery.sequence)
            .limit(most)
        )
        with transaction(self.sessions) as session:
            found = session.execute(chosen).all()
            numbers = [delivery.sequence for delivery, *_ in found if delivery.sequence is not None]
            told = session.scalars(select(RequestEvent).where(RequestEvent.sequence.in_(numbers))).all()
            wait_sec = self.context.settings.stake_batch_max_wait_sec
            events = {event.sequence: event for event in render_events(session, told, wait_sec)}
        return [
            Due(delivery, body_of(_event_of(delivery, events)), now, float(age_sec)) for delivery, now, age_sec in found
        ]

    def _send(self, row: Webhook, due: Sequence[Due], lines: Sequence[Line]) -> list[Sent]:
        """Send all of them at once, each on a line of its own."""
        secrets = [self._vault.open(row.sealed_secret, row.id)]
        if row.sealed_old_secret is not None and row.old_secret_until is not None and row.old_secret_until > due[0].now:
            secrets.append(self._vault.open(row.sealed_old_secret, row.id))

        def send(line: Line, item: Due) -> Sent:
            began = time.monotonic()
            headers = headers_of(item.delivery, secrets, item.body, item.now)
            return Sent(item, line.post(item.body, headers), began)

        crashpoint("webhook.sending")
        if len(due) == 1:
            return [send(lines[0], due[0])]
        with ThreadPoolExecutor(len(due)) as threads:
            return list(threads.map(send, lines, due))

    def _write(self, row: Webhook, health: Health, sent: Sequence[Sent]) -> float:
        """Write what came of sendings, make what waited behind them due, and note how well the endpoint is; returns for how
        many seconds it is left alone. Raises `LeaseLost`."""
        was_unwell, asked_sec = health.is_unwell, 0.0
        outcomes = []
        for item in sent:
            answer = item.answer
            health = health.after(answer.status)
            asked = retrying.asked_pause_sec(answer.status, answer.retry_after, item.due.now)
            asked_sec = max(asked_sec, asked)
            outcomes.append(_outcome(item, asked))
        given = {"results": json.dumps(outcomes)}
        pause_sec = max(asked_sec, health.pause_sec)
        with transaction(self.sessions) as session:
            changes = {
                "failures": health.failures,
                "paused_until": func.now() + seconds(pause_sec) if pause_sec else None,
                "lease_until": func.now() + seconds(self.lease_sec),
            }
            write_fenced(session, row, changes)
            session.execute(_WRITE, given)
            session.execute(_NOTE, given)
            ended = {
                item.due.delivery.request_id for item, outcome in zip(sent, outcomes, strict=True) if outcome["ends"]
            }
            make_first_due(session, row.id, sorted(name for name in ended if name is not None))
            if was_unwell and not health.is_unwell:
                bring_back_deliveries(session, row)
            if any(item.answer.status == retrying.GONE for item in sent):
                disable(session, row, retrying.refusal(retrying.GONE))
        _log(row, outcomes)
        return pause_sec

    def _rest(self, row: Webhook) -> Wait:
        """Nothing more is sent in this turn: the next one is when the next delivery is due, or something comes meanwhile."""
        first = select(func.min(WebhookDelivery.due_at)).where(WebhookDelivery.webhook_id == row.id).scalar_subquery()
        with transaction(self.sessions) as session:
            wakes, due_at = session.execute(select(Webhook.wakes, first).where(Webhook.id == row.id)).one()
        at_once = func.greatest(func.now(), Webhook.paused_until)
        later = null() if due_at is None else func.greatest(due_at, Webhook.paused_until)
        next_run_at: ColumnElement[datetime] = case(
            (Webhook.status != WebhookStatus.ENABLED, null()), (Webhook.wakes != wakes, at_once), else_=later
        )
        return Wait(0.0, row.reason, {"next_run_at": next_run_at})

    def _line(self, row: Webhook) -> Line:
        return Line(row.url, allow_private=self.context.settings.webhook_allow_private, total_sec=self._total_sec)


def deliver(context: PoolContext) -> int:
    """Send what is due to the endpoint that has waited longest; returns how many endpoints that were."""
    return runner.advance(WebhookFlow(context))


def disable(session: Session, row: Webhook, why: Reason) -> None:
    """Send nothing more to an endpoint. What is pending stays so, and goes out once it is enabled."""
    changes = {
        "status": WebhookStatus.DISABLED,
        "reason": why,
        "next_run_at": None,
        "updated_at": func.clock_timestamp(),
    }
    session.execute(update(Webhook).where(Webhook.id == row.id).values(changes), execution_options=_QUIET)
    session.add(flow_event(row, "disabled", WebhookStatus.DISABLED, why))


def _event_of(delivery: WebhookDelivery, events: Mapping[int, Event]) -> Event:
    return test_event(delivery.created_at) if delivery.sequence is None else events[delivery.sequence]


def _outcome(sent: Sent, asked_sec: float) -> _Outcome:
    """What a sending means for its delivery."""
    answer, delivery = sent.answer, sent.due.delivery
    status, pause_sec, error = DeliveryStatus.PENDING, None, answer.fault
    if retrying.taken(answer.status):
        status = DeliveryStatus.DELIVERED
    else:
        error = error or retrying.refusal(answer.status or 0)
        if answer.status == retrying.GONE:
            pause_sec = 0.0  # at once, should somebody enable it
        elif retrying.given_up(sent.due.age_sec):
            status = DeliveryStatus.DEAD_LETTER
        else:
            pause_sec = max(asked_sec, retrying.pause_sec(delivery.attempt_count + 1, _SPREAD.random()))
    return {
        "id": delivery.id,
        "status": status,
        "ends": status != DeliveryStatus.PENDING,
        "pause_sec": pause_sec,
        "ago_sec": time.monotonic() - sent.began,
        "duration_ms": answer.duration_ms,
        "answer_status": answer.status,
        "error": error,
    }


def bring_back_deliveries(session: Session, row: Webhook | None = None) -> None:
    """Send what was put off now: to an endpoint that answers again, or to all, where the database's clock has stepped back."""
    late = [WebhookDelivery.due_at > func.now()]
    if row is not None:
        late.append(WebhookDelivery.webhook_id == row.id)
    session.execute(update(WebhookDelivery).where(*late).values(due_at=func.now()), execution_options=_QUIET)


def _log(row: Webhook, outcomes: Sequence[_Outcome]) -> None:
    """A line for what is given up, and one for a round in which something was not taken."""
    for outcome in outcomes:
        if outcome["status"] == DeliveryStatus.DEAD_LETTER:
            log.error("webhook_dead_letter", webhook_id=row.id, delivery_id=outcome["id"], why=outcome["error"])
    failed = [outcome for outcome in outcomes if outcome["error"] is not None]
    if failed:
        log.warning("webhook_not_taken", webhook_id=row.id, deliveries=len(failed), why=failed[-1]["error"])


def _close(lines: list[Line]) -> None:
    while lines:
        lines.pop().close()
