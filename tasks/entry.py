"""Celery's entry points: each takes at most one id, and hands it to the pool's flow that the name says.

A hint says nothing but "look": the row in Postgres holds what is to be done. What beat fires carries the schedule's name,
so that two beats at once do one firing.
"""

from functools import lru_cache

import celeryconfig
from apps.common.logging import configure_logging
from apps.flow.schedule import fires as first_to_fire
from apps.pool import sweep
from apps.pool.context import PoolContext, make_context, pool_publisher
from apps.pool.flows import batches, batching, requests, withdrawal_claim
from apps.pool.models import ScheduleFire
from apps.pool.quotes.service import record_estimates
from apps.pool.reconcile.audits import audit_books
from apps.pool.reconcile.run import reconcile
from apps.pool.settings import load_settings
from apps.pool.users import auto_claims
from apps.pool.walk.run import walk_pool
from apps.pool.webhooks.fan_out import fan_out
from apps.pool.webhooks.flow import deliver
from tasks import celery


@lru_cache(maxsize=1)
def worker_context() -> PoolContext:
    """The context of this worker process, made at first use: after the fork, so that no socket is shared."""
    configure_logging("worker")
    settings = load_settings()
    return make_context(settings, pool_publisher(settings))


@celery.task(name="tasks.sweep.wake")
def wake() -> int:
    """Hint at every due row that has no hint under way; returns how many."""
    return sweep.wake(worker_context())


@celery.task(name="tasks.requests.advance")
def advance_requests(request_id: str | None = None) -> int:
    """Run the step of the named due request, or of up to ten due ones; returns how many were taken."""
    return requests.advance(worker_context(), request_id)


@celery.task(name="tasks.batches.advance")
def advance_batches(batch_id: str | None = None) -> int:
    """Run the step of the named due batch, or of one due batch; returns how many were taken."""
    return batches.advance(worker_context(), batch_id)


@celery.task(name="tasks.batches.transaction_ended")
def transaction_ended(message_id: str | None = None) -> int:
    """What the relayer hints at: a transaction has ended, and the batch that waits for it looks before its time."""
    return batches.transaction_ended(worker_context(), message_id)


@celery.task(name="tasks.batching.run", rest_ms=500)
def open_batches(schedule: str | None = None) -> int:
    """Open every batch that is due; returns how many."""
    context = worker_context()
    if not fires(context, schedule):
        return 0
    opened = batching.open_due_batches(context)
    record_estimates(context)
    return opened


@celery.task(name="tasks.walk.run")
def walk(schedule: str | None = None) -> int:
    """Walk the default pool; what beat fires. Returns the items booked."""
    context = worker_context()
    return walk_pool(context, context.settings.pool_id) if fires(context, schedule) else 0


@celery.task(name="tasks.walk.run_pool")
def walk_one_pool(pool_id: str | None = None) -> int:
    """Walk one pool; what the sweep and ended transactions hint at. Returns the items booked."""
    context = worker_context()
    return walk_pool(context, pool_id or context.settings.pool_id)


@celery.task(name="tasks.claims.poll")
def poll_withdrawals(schedule: str | None = None) -> int:
    """Look at every open withdrawal NFT; returns how many claim batches were opened."""
    context = worker_context()
    return withdrawal_claim.poll_open(context) if fires(context, schedule) else 0


@celery.task(name="tasks.reconciliation.run")
def reconcile_default_pool(schedule: str | None = None) -> str | None:
    """Reconcile the default pool; returns the verdict, or None when the lane was busy or a service did not answer."""
    context = worker_context()
    return reconcile(context, context.settings.pool_id) if fires(context, schedule) else None


@celery.task(name="tasks.audits.run")
def audit_what_is_new(schedule: str | None = None) -> bool | None:
    """Audit what is new in the default pool's books; returns whether all is right."""
    return _audit(schedule, full=False)


@celery.task(name="tasks.audits.run_full")
def audit_everything(schedule: str | None = None) -> bool | None:
    """Audit the default pool's books from their beginning; returns whether all is right."""
    return _audit(schedule, full=True)


@celery.task(name="tasks.auto_claims.run")
def claim_rewards_for_users(schedule: str | None = None) -> int:
    """Claim the rewards of users who prefer that it is done for them; returns how many requests were made."""
    context = worker_context()
    return auto_claims.claim_due(context) if fires(context, schedule) else 0


@celery.task(name="tasks.webhooks.fan_out")
def fan_out_events() -> int:
    """Turn the feed's new events into deliveries of each webhook; returns how many."""
    return fan_out(worker_context())


@celery.task(name="tasks.webhooks.deliver")
def deliver_events() -> int:
    """Send what is due to one webhook; returns how many webhooks were looked at."""
    return deliver(worker_context())


def _audit(schedule: str | None, *, full: bool) -> bool | None:
    context = worker_context()
    return audit_books(context, context.settings.pool_id, full=full) if fires(context, schedule) else None


def fires(context: PoolContext, schedule: str | None) -> bool:
    """Whether this firing of a schedule is the first; a hint, which names none, always runs."""
    if schedule is None:
        return True
    interval_sec = float(str(celeryconfig.beat_schedule[schedule]["schedule"]))
    return first_to_fire(context.sessions, ScheduleFire, schedule, interval_sec)
