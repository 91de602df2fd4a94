"""Named places at which a test kills the process, to show that a restart finds everything as it should be."""

import os
import signal
from collections import Counter

_hits: Counter[str] = Counter()


def crashpoint(name: str) -> None:
    """SIGKILL this process when ``STAKING_CRASHPOINT`` is ``name``, or ``name:n`` at the n-th hit; else do nothing.

    SIGKILL and not an exception: no `finally`, no rollback, no flush may run, exactly as when the machine loses power.
    """
    wanted = os.environ.get("STAKING_CRASHPOINT")
    if not wanted:
        return
    wanted_name, _, number = wanted.partition(":")
    if wanted_name != name:
        return
    _hits[name] += 1
    if _hits[name] >= int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)
