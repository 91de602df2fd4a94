"""Celery of the relayer: its own queue, the shared delivery settings, no schedule (the pool's beat sends the hint)."""

from apps.common.celery_settings import delivery_settings
from relayer.settings import load_broker_url

globals().update(delivery_settings(load_broker_url()))

imports = ("relayer.tasks",)
task_default_queue = "relayer"
task_routes = {"relayer.*": {"queue": "relayer"}}
