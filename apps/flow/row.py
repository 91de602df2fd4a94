"""What a flow's tables hold, as mixins: the row of a flow, its history, and the firings of its schedules."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ColumnElement, DateTime, Identity, Integer, Interval, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

TIME = DateTime(timezone=True)
JSON_OR_NULL = JSONB(none_as_null=True)

# {"code": …, "detail": …}: the code is stable and may be acted on, the detail is for people.
Reason = dict[str, str]


class FlowEventMixin:
    """A line of a flow's history: which run of which row did what, and why."""

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    subject_id: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer)
    # Any: what a step has to tell of its run is its own.
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSON_OR_NULL)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


class FlowMixin:
    """A flow: its status, its lease, its attempts and the time of its next run. All times are the database's.

    A model names its `subject`, which its history calls it by, and the table of that history. `parked_status` is the
    status that the row had when it was parked, and goes back to when an operator lets it try again.

    `flow_version` is the version of the steps that the row was begun with. A model counts its `current_version` up when a
    worker of the release before could not go on with a row of this one: such a worker then leaves the row alone.
    """

    subject: ClassVar[str]
    history: ClassVar[type[FlowEventMixin]]
    current_version: ClassVar[int] = 1

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    status: Mapped[str] = mapped_column(Text)
    reason: Mapped[Reason | None] = mapped_column(JSON_OR_NULL)
    parked_status: Mapped[str | None] = mapped_column(Text)
    next_run_at: Mapped[datetime | None] = mapped_column(TIME)
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)
    lease_token: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(TIME)
    # Read and written by workers of the release before only, which may still run beside this one.
    hinted_at: Mapped[datetime | None] = mapped_column(TIME)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())

    @declared_attr
    def flow_version(cls) -> Mapped[int]:  # noqa: N805  # SQLAlchemy hands over the class
        return mapped_column(Integer, default=cls.current_version, server_default=text("1"))


class LaneMixin:
    """A named lane within a scope, which one holder has at a time; one whose time is up is free again."""

    scope: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder: Mapped[str] = mapped_column(Text)
    held_until: Mapped[datetime] = mapped_column(TIME)


class ScheduleFireMixin:
    """One firing of a schedule: two beats at once insert one row."""

    schedule: Mapped[str] = mapped_column(Text, primary_key=True)
    fire_at: Mapped[datetime] = mapped_column(TIME, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.clock_timestamp())


def seconds(value: float | ColumnElement[float]) -> ColumnElement[Any]:
    """An SQL interval of so many seconds; the number may be an SQL expression."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value, type_=Interval)


def reason(code: str, detail: str) -> Reason:
    return {"code": code, "detail": detail}


def code_of(why: Reason | None) -> str | None:
    return None if why is None else why["code"]
