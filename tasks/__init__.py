"""Celery's side of the pool's flows: the app, its beat, and entry points of a few lines (`tasks.entry`)."""

from celery import Celery

from apps.common.hint_task import HintTask

celery = Celery("tasks", task_cls=HintTask)
celery.config_from_object("celeryconfig")
