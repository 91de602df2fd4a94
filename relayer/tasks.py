"""The relayer's worker: ``celery -A relayer.tasks:celery worker -Q relayer -c 1``.

A hint says nothing but "look": the pump works on what authenticated calls wrote, so a lost, forged or repeated hint is
at worst an early look.
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
from relayer.store.states import OPEN

# Each ended message wakes the flow that waits for it; beyond this many at once the pool's sweep is quicker.
MAX_HINTS = 10
SAME_NEWS_SEC = 0.2
MARK_SEC = 5.0

celery = Celery("relayer", set_as_current=False, task_cls=HintTask)
celery.config_from_object("relayer.celeryconfig")


@celery.task(name="relayer.tasks.pump")
def pump() -> None:
    """One tick over everything due, see `relayer.lifecycle.pump`; nothing where the last one has just seen it all."""
    context, hints, last = _collaborators()
    news = _news(context)
    if news == last.news and time.monotonic() - last.at < SAME_NEWS_SEC:
        return
    last.news, last.at = news, time.monotonic()
    tick = pump_once(context, on_ended=lambda message_ids: _wake_flows(hints, message_ids))
    if tick.ran and last.at >= last.mark_at:
        last.mark_at = last.at + MARK_SEC
        _leave_heartbeat(context)


@dataclass
class _LastTick:
    news: object = None
    at: float = 0.0
    mark_at: float = 0.0


def _news(context: RelayerContext) -> object:
    """What callers have asked for, cheaply: read before a tick, so that nothing that comes during it is missed. A burst
    of posts leaves as many hints; without this each would be a look at the chain."""
    with transaction(context.sessions) as session:
        query = select(func.max(Message.seq), func.max(Message.updated_at)).where(Message.status.in_(("queued", *OPEN)))
        return tuple(session.execute(query).one())


def _leave_heartbeat(context: RelayerContext) -> None:
    """The sign that hints of beat arrive and ticks run to their end; its age is what ops are alarmed by."""
    mark = insert(Heartbeat).values(name="relayer_pump")
    mark = mark.on_conflict_do_update(index_elements=["name"], set_={"beaten_at": func.clock_timestamp()})
    with transaction(context.sessions) as session:
        session.execute(mark)


def _wake_flows(hints: HintPublisher, message_ids: list[str]) -> None:
    """Wake the flows of the pool that wait for these, at once; a lost hint costs what their polling takes."""
    crashpoint("relayer.hinting")
    for message_id in message_ids[:MAX_HINTS]:
        failures = hints.failures
        hints.send("tasks.batches.transaction_ended", message_id, queue="pool")
        if hints.failures != failures:
            return  # a broker that is gone costs a second per hint
    if len(message_ids) > MAX_HINTS:
        hints.send("tasks.sweep.wake", queue="pool")


@cache
def _collaborators() -> tuple[RelayerContext, HintPublisher, _LastTick]:
    """Built at the first task, hence after the worker forked: no connection is ever shared between processes."""
    configure_logging("relayer")
    settings = load_settings()
    context = make_context(settings, make_sessions(make_engine(settings.database_url, pool_size=2)))
    return context, HintPublisher(settings.broker_url), _LastTick()
