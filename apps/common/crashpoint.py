"""Named places at which a test kills the process, to show that a restart finds everything as it should be."""

import os
import signal
from collections import Counter
from functools import cache

ANY = "*"

_hits: Counter[str] = Counter()


def crashpoint(name: str) -> None:
    """SIGKILL this process when ``STAKING_CRASHPOINT`` is ``name``, or ``name:n`` at the n-th hit; else do nothing.

    ``*`` stands for every name: ``*:7`` is the seventh point that the process comes to, whatever it is called.

    SIGKILL and not an exception: no `finally`, no rollback, no flush may run, exactly as when the machine loses power.
    """
    if is_here(name):
        os.write(2, f"killed at {name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def is_here(name: str) -> bool:
    """Whether the process has come to the point that its environment names. A test that chooses otherwise puts a function of
    its own in this one's place."""
    wanted, number = _wanted()
    if not wanted or wanted not in {name, ANY}:
        return False
    _hits[wanted] += 1
    return _hits[wanted] >= number


@cache
def _wanted() -> tuple[str, int]:
    """Read once in a process: every transaction and every call passes here."""
    name, _, number = os.environ.get("STAKING_CRASHPOINT", "").partition(":")
    return name, int(number or 1)


def _begin_anew() -> None:
    _hits.clear()
    _wanted.cache_clear()


os.register_at_fork(after_in_child=_begin_anew)
