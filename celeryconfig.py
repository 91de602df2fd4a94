"""Celery of the pool's flows: routes, delivery settings and the beat schedule. Each interval is a setting.

The relayer's own app (``relayer.tasks``) shares the delivery settings; beat only sends it a hint by name.
"""

import os

from apps.common.celery_settings import delivery_settings


def _interval(name: str, default: float) -> float:
    return float(os.environ.get(name) or default)


globals().update(delivery_settings(os.environ.get("CELERY_BROKER_URL") or "redis://127.0.0.1:6379/0"))

imports = (
    "tasks.sweep",
    "tasks.requests",
    "tasks.batching",
    "tasks.batches",
    "tasks.walk",
    "tasks.claims",
    "tasks.reconciliation",
)
task_default_queue = "pool"
task_routes = {"tasks.*": {"queue": "pool"}, "relayer.*": {"queue": "relayer"}}

# A hint that waited in the broker while no worker ran is worth nothing when the next one is already there.
_EVERY = {
    "sweep": ("tasks.sweep.wake", "SWEEP_INTERVAL_SEC", 1.0),
    "batching": ("tasks.batching.run", "BATCH_INTERVAL_SEC", 5.0),
    "distribution": ("tasks.walk.run", "REWARD_DISTRIBUTION_INTERVAL_SEC", 30.0),
    "claim_polling": ("tasks.claims.poll", "CLAIM_POLL_INTERVAL_SEC", 60.0),
    "reconciliation": ("tasks.reconciliation.run", "RECONCILIATION_INTERVAL_SEC", 3600.0),
    "relayer_pump": ("relayer.tasks.pump", "RELAYER_PUMP_INTERVAL_SEC", 1.0),
}
beat_schedule = {
    schedule: {
        "task": task,
        "schedule": _interval(name, default),
        "options": {"expires": max(10.0, 2 * _interval(name, default))},
        # The pool's tasks record each firing under (schedule, time), so that a second beat fires nothing twice.
        "kwargs": {} if schedule in {"sweep", "relayer_pump"} else {"schedule": schedule},
    }
    for schedule, (task, name, default) in _EVERY.items()
}
