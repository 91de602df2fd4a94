"""The relayer's worker: ``celery -A relayer.tasks:celery worker -Q relayer -c 1``.

A hint only wakes the pump, which works on what authenticated calls wrote. So a lost hint costs the time until the next one,
and a forged or repeated one is at worst an early tick.
"""

import time
from dataclasses import dataclass
from functools import cache

from celery import Celery
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from apps.common.celery_settings import HintPublisher
from apps.common.crashpoint import crashpoint
from apps.common.database import make_engine, make_sessions, transaction
from apps.common.hint_task import HintTask
from apps.common.logging import configure_logging
from relayer.context import RelayerContext, make_context
from relayer.lifecycle.pump import pump_once
from relayer.settings import load_settings
from relayer.store.models import Heartbeat, Message
from relayer.store.states import UNFINISHED

# Each ended message wakes the flow that waits for it; beyond this many at once the pool's sweep is quicker.
MAX_HINTS = 10
MIN_IDLE_SEC = 0.2  # a tick this soon after the last one is skipped unless something was asked for meanwhile
MARK_SEC = 5.0

celery = Celery("relayer", set_as_current=False, task_cls=HintTask)
celery.config_from_object("relayer.celeryconfig")


@celery.task(name="relayer.tasks.pump")
def pump() -> None:
    """One tick over everything due, see `relayer.lifecycle.pump`; skipped where the last one has just done it all."""
    context, hints, last = _collaborators()
    watermark = _work_watermark(context)
    if watermark == last.watermark and time.monotonic() - last.at < MIN_IDLE_SEC:
        return
    last.watermark, last.at = watermark, time.monotonic()
    tick = pump_once(context, on_ended=lambda message_ids: _wake_flows(hints, message_ids))
    if tick.ran and last.at >= last.mark_at:
        last.mark_at = last.at + MARK_SEC
        _leave_heartbeat(context)


@dataclass
class _LastTick:
    watermark: object = None
    at: float = 0.0
    mark_at: float = 0.0


def _work_watermark(context: RelayerContext) -> object:
    """Newest (seq, updated_at) of the messages that are not final. If it equals the last tick's, a tick within
    MIN_IDLE_SEC of that one is skipped: a burst of posts leaves as many hints, and each would read the chain.

    It is read before the tick, so that what is posted during the tick changes it.
    """
    with transaction(context.sessions) as session:
        query = select(func.max(Message.seq), func.max(Message.updated_at)).where(Message.status.in_(UNFINISHED))
        return tuple(session.execute(query).one())


def _leave_heartbeat(context: RelayerContext) -> None:
    """The sign that beat's hints arrive and ticks run to their end; an alert fires when it is too old."""
    mark = insert(Heartbeat).values(name="relayer_pump")
    mark = mark.on_conflict_do_update(index_elements=["name"], set_={"beaten_at": func.clock_timestamp()})
    with transaction(context.sessions) as session:
        session.execute(mark)


def _wake_flows(hints: HintPublisher, message_ids: list[str]) -> None:
    """Wake the flows of the pool that wait for these messages; where a hint is lost, the flow finds the end by polling."""
    crashpoint("relayer.hinting")
    for message_id in message_ids[:MAX_HINTS]:
        failures = hints.failures
        hints.send("tasks.batches.transaction_ended", message_id, queue="pool")
        if hints.failures != failures:
            return  # each hint to a broker that is gone costs a second
    if len(message_ids) > MAX_HINTS:
        hints.send("tasks.sweep.wake", queue="pool")


@cache
def _collaborators() -> tuple[RelayerContext, HintPublisher, _LastTick]:
    """Built at the first task, hence after the worker forked: no connection is ever shared between processes."""
    configure_logging("relayer")
    settings = load_settings()
    context = make_context(settings, make_sessions(make_engine(settings.database_url, pool_size=2)))
    return context, HintPublisher(settings.broker_url), _LastTick()
