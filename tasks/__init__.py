"""The flows that replace Temporal, as Celery tasks: one module per flow, over one small engine (`tasks.engine`)."""

from celery import Celery

celery = Celery("tasks")
celery.config_from_object("celeryconfig")
