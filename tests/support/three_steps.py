"""A flow of three steps that do nothing, with its own tables and its own Celery app: for measurements, and for tests of
several hosts.

Its processes are ``celery -A tests.support.three_steps worker`` and ``beat``, with the settings of `environment` below.
"""

import os
import threading
from functools import lru_cache

from celery import Celery
from sqlalchemy import Index, Text, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from apps.common.celery_settings import delivery_settings
from apps.common.database import make_engine, make_sessions, transaction
from apps.common.hint_task import HintTask
from apps.common.settings import normalise_database_url
from apps.flow import runner
from apps.flow.hints import publisher
from apps.flow.outcome import Advance, Outcome
from apps.flow.row import FlowEventMixin, FlowMixin, LaneMixin, ScheduleFireMixin
from apps.flow.runner import Flow
from apps.flow.schedule import mark_sweep
from apps.flow.sweep import wake

QUEUE = "three"
TASK = "three.advance"
NEXT = {"first": "second", "second": "third", "third": "done"}
HELD = "0"  # a host that is told to hold does so at the second step of rows whose id ends in this


class Base(DeclarativeBase):
    pass


class ThreeEvent(FlowEventMixin, Base):
    __tablename__ = "three_events"
    __table_args__ = (Index("ix_three_events_subject", "subject", "subject_id", "id"),)


class Lane(LaneMixin, Base):
    __tablename__ = "three_lanes"


class Firing(ScheduleFireMixin, Base):
    __tablename__ = "three_firings"


class Three(FlowMixin, Base):
    __tablename__ = "threes"
    __table_args__ = (Index("ix_threes_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),)
    subject = "three"
    history = ThreeEvent


class Effect(Base):
    """Something outside of the flow that takes each name once, and knows which host's it was."""

    __tablename__ = "effects"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    host: Mapped[str] = mapped_column(Text)


class ThreeFlow(Flow[Three]):
    """first --> second --> third --> done. With a host's name each step also has an effect, for all to see."""

    name = "three"
    model = Three
    task = TASK

    def step(self, row: Three) -> Outcome:
        host = os.environ.get("THREE_HOST")
        if host:
            self._take_effect(f"{row.id}:{row.status}", host)
            if os.environ.get("THREE_HOLD") and row.status == "second" and row.id.endswith(HELD):
                threading.Event().wait()
        following = NEXT[row.status]
        return Advance(following, run_in_sec=None if following == "done" else 0.0)

    def _take_effect(self, name: str, host: str) -> None:
        with transaction(self.sessions) as session:
            session.execute(insert(Effect).values(name=name, host=host).on_conflict_do_nothing())


def environment(database_url: str, broker_url: str, *, lease_sec: float = 60.0, host: str = "") -> dict[str, str]:
    """What the processes of one host are told."""
    return {
        **os.environ,
        "THREE_DATABASE_URL": database_url,
        "THREE_LEASE_SEC": str(lease_sec),
        "THREE_HOST": host,
        "CELERY_BROKER_URL": broker_url,
    }


def make_tables(database_url: str) -> None:
    engine = make_engine(normalise_database_url(database_url))
    Base.metadata.create_all(engine)
    engine.dispose()


celery = Celery("three", task_cls=HintTask)
celery.conf.update(delivery_settings(os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")))
celery.conf.update(
    task_default_queue=QUEUE,
    beat_scheduler="tasks.beat:SteadyScheduler",
    beat_schedule={"sweep": {"task": "three.sweep", "schedule": 1.0}},
)
if os.environ.get("THREE_HOLD"):  # and no time limit ends it
    celery.conf.update(task_soft_time_limit=None, task_time_limit=None)


@celery.task(name=TASK)
def advance(row_id: str | None = None) -> int:
    """Run the steps of the named due row, or of a burst of due ones; returns how many were taken."""
    return runner.advance(_flow(), row_id=row_id)


@celery.task(name="three.sweep")
def sweep() -> int:
    flow = _flow()
    return wake(
        flow.sessions,
        flow.publish,
        {Three: TASK},
        before=lambda session: mark_sweep(session, Firing, [Three], Lane, flow.lease_sec),
    )


@lru_cache(maxsize=1)
def _flow() -> ThreeFlow:
    """Made at first use: after the fork, so that no socket is shared."""
    sessions = make_sessions(make_engine(normalise_database_url(os.environ["THREE_DATABASE_URL"])))
    publish = publisher(os.environ["CELERY_BROKER_URL"], QUEUE)
    return ThreeFlow(sessions, publish, float(os.environ["THREE_LEASE_SEC"]))
