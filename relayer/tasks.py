"""The relayer's worker: ``celery -A relayer.tasks:celery worker -Q relayer -c 1``.

A hint says nothing but "look": the pump works on what authenticated calls wrote, so a lost, forged or repeated hint is
at worst an early look.
"""

from functools import cache

from celery import Celery

from apps.common.celery_settings import HintPublisher
from apps.common.crashpoint import crashpoint
from apps.common.database import make_engine, make_sessions
from apps.common.logging import configure_logging
from relayer.context import RelayerContext, make_context
from relayer.pump import pump_once
from relayer.settings import load_settings

# Each ended message wakes the flow that waits for it; beyond this many at once the pool's sweep is quicker.
MAX_HINTS = 50

celery = Celery("relayer", set_as_current=False)
celery.config_from_object("relayer.celeryconfig")


@celery.task(name="relayer.tasks.pump")
def pump() -> None:
    """One tick over everything due; see `relayer.pump`."""
    context, hints = _collaborators()
    pump_once(context, on_ended=lambda message_ids: _wake_flows(hints, message_ids))


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
def _collaborators() -> tuple[RelayerContext, HintPublisher]:
    """Built at the first task, hence after the worker forked: no connection is ever shared between processes."""
    configure_logging("relayer")
    settings = load_settings()
    return make_context(settings, make_sessions(make_engine(settings.database_url, pool_size=2))), HintPublisher(
        settings.broker_url
    )
