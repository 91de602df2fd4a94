"""The flows that replace Temporal, as Celery tasks: one module per flow, over one small engine (`tasks.engine`)."""

from celery import Celery

from apps.common.hint_task import HintTask

celery = Celery("tasks", task_cls=HintTask)
celery.config_from_object("celeryconfig")
