"""Imported by the interpreter at its start, see `tests.support.shifted_clock`."""

import datetime
import os
import time

_FILE = os.environ["CLOCK_SHIFT_FILE"]
_time, _time_ns = time.time, time.time_ns
_Datetime = datetime.datetime


def _shift() -> float:
    with open(_FILE) as file:
        return float(file.read())


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Datetime)


class _Shifted(_Datetime, metaclass=_Kind):
    """Every moment is an ordinary `datetime`; only what "now" is differs."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _Datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:  # type: ignore[override]
        return _Datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + int(_shift() * 10**9)
datetime.datetime = _Shifted  # type: ignore[misc]
