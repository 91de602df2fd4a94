"""The span of time that a question is about."""

from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.common.errors import InvalidInput

# A year and what a tax office may want beside it.
MOST_DAYS = 400


class Span(Protocol):
    """A query with the two ends of a span."""

    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime | None: ...


def span_of(query: Span, session: Session) -> tuple[datetime, datetime]:
    """After which time and up to which; the end is now, by the database's clock, where it is not named or has not come.

    Raises `InvalidInput` where the span is empty or longer than `MOST_DAYS`.
    """
    now = session.scalars(select(func.clock_timestamp())).one()
    end = now if query.end is None else min(query.end, now)
    if query.start >= end:
        raise InvalidInput(errors={"from": ["Must be before `to`, and before now."]})
    if end - query.start > timedelta(days=MOST_DAYS):
        raise InvalidInput(errors={"from": [f"A span has {MOST_DAYS} days at most; ask for parts of it."]})
    return query.start, end
