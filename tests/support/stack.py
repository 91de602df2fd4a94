"""A whole stack for tests: real databases, broker, chain, services and workers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.local.home import Home
from apps.local.stack import Stack

RHYTHM = {"RECONCILIATION_INTERVAL_SEC": "2", "STAKE_BATCH_THRESHOLD_WEI": str(10**18), "STAKE_BATCH_MAX_WAIT_SEC": "3"}


@contextmanager
def running_stack(directory: Path, settings: dict[str, str], *, separate_custody: bool = False) -> Iterator[Stack]:
    """Start a stack with settings of its own, on whatever ports are free; stop it whatever happens."""
    stack = Stack(Home(directory))
    wanted = {**RHYTHM, **settings}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        stack.up(separate_custody=separate_custody)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    try:
        yield stack
    finally:
        stack.down()
