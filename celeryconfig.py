"""Celery of the pool's flows: routes, delivery settings and the beat schedule. Each interval is a setting.

The relayer's own app (``relayer.tasks``) shares the delivery settings; beat only sends it a hint by name.
"""

from pathlib import Path

from apps.common.celery_settings import delivery_settings
from apps.common.settings import SettingsReader

# Worker and beat belong to the pool and read its file: ``apps/pool/.env``; a real environment variable wins.
_reader = SettingsReader("celery", Path(__file__).parent / "apps" / "pool")
globals().update(delivery_settings(_reader.broker_url()))

imports = ("tasks.entry",)
task_default_queue = "pool"
# The first that fits.
task_routes = {
    "tasks.webhooks.*": {"queue": "webhooks"},
    "tasks.*": {"queue": "pool"},
    "relayer.*": {"queue": "relayer"},
}

# No hint expires: that would be beat's clock read by a worker's. Beat leaves out what no worker takes (`tasks.beat`).
beat_scheduler = "tasks.beat:SteadyScheduler"
_EVERY = {
    "sweep": ("tasks.sweep.wake", _reader.seconds("SWEEP_INTERVAL_SEC", 1.0)),
    "batching": ("tasks.batching.run", _reader.seconds("BATCH_INTERVAL_SEC", 5.0)),
    "distribution": ("tasks.walk.run", _reader.seconds("REWARD_DISTRIBUTION_INTERVAL_SEC", 30.0)),
    "claim_polling": ("tasks.claims.poll", _reader.seconds("CLAIM_POLL_INTERVAL_SEC", 60.0)),
    "reconciliation": ("tasks.reconciliation.run", _reader.seconds("RECONCILIATION_INTERVAL_SEC", 3600.0)),
    "audits": ("tasks.audits.run", _reader.seconds("AUDIT_INTERVAL_SEC", 600.0)),
    "full_audits": ("tasks.audits.run_full", _reader.seconds("FULL_AUDIT_INTERVAL_SEC", 86400.0)),
    "auto_claims": ("tasks.auto_claims.run", _reader.seconds("AUTO_CLAIM_POLL_SEC", 60.0)),
    "relayer_pump": ("relayer.tasks.pump", _reader.seconds("RELAYER_PUMP_INTERVAL_SEC", 1.0)),
}
beat_schedule = {
    schedule: {
        "task": task,
        "schedule": interval,
        # The pool's tasks record each firing under (schedule, time), so that a second beat fires nothing twice. The
        # sweep marks its own beats, and the relayer has a database of its own.
        "kwargs": {} if schedule in {"sweep", "relayer_pump"} else {"schedule": schedule},
    }
    for schedule, (task, interval) in _EVERY.items()
}
_reader.finish()
