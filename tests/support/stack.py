"""A whole stack for tests: real databases, broker, chain, services and workers."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from apps.local.home import Home
from apps.local.ports import STANDARD
from apps.local.programs import ROOT, Programs
from apps.local.stack import Stack
from tests.support import tally
from tests.support.ports import free_port
from tests.support.scratch import scratch
from tests.support.shifted_clock import ShiftedClock

RHYTHM = {"RECONCILIATION_INTERVAL_SEC": "2", "STAKE_BATCH_THRESHOLD_WEI": str(10**18), "STAKE_BATCH_MAX_WAIT_SEC": "3"}
# A life mostly waits: for blocks, and for the next look at them. For tests that need no second to be a second.
QUICK = {
    "STAKING_BLOCK_TIME": "0.25",
    "RECONCILIATION_INTERVAL_SEC": "1",
    "STAKE_BATCH_MAX_WAIT_SEC": "1",
    "UNSTAKE_BATCH_MAX_WAIT_SEC": "1",
    "BATCH_INTERVAL_SEC": "0.5",
    "REWARD_DISTRIBUTION_INTERVAL_SEC": "0.5",
    "CLAIM_POLL_INTERVAL_SEC": "1",
    "RELAYER_PUMP_INTERVAL_SEC": "0.5",
}


@contextmanager
def running_stack(settings: dict[str, str] | None = None, *, separate_custody: bool = False) -> Iterator[Stack]:
    """Start a stack with settings of its own, on ports of this process's block; stop and erase it whatever happens."""
    tally.count("stacks")
    ports = {f"STAKING_PORT_{name.upper()}": str(free_port()) for name in STANDARD}
    with scratch() as directory:
        stack = Stack(Home(directory / "home"))
        try:
            with environment({**ports, **RHYTHM, **(settings or {})}):
                stack.up(separate_custody=separate_custody)
            yield stack
        finally:
            stack.erase()


class SharedStack:
    """One quick stack for the folders whose tests use users of their own: started by the first that asks, until `stop`."""

    def __init__(self) -> None:
        self._started = ExitStack()
        self._stack: Stack | None = None

    def start(self) -> Stack:
        if self._stack is None:
            self._stack = self._started.enter_context(running_stack(QUICK))
        return self._stack

    def stop(self) -> None:
        """Called where no later test uses it: its processes would take from the others' time."""
        self._stack = None
        self._started.close()


@contextmanager
def beside(stack: Stack, name: str, directory: Path, clock: ShiftedClock) -> Iterator["subprocess.Popen[bytes]"]:
    """One more process of a program of the stack, whose clock is another, until the block ends."""
    (program,) = [found for found in Programs(stack.home, stack.home.load()).services() if found.name == name]
    command = [part.replace("@%h", f"-{directory.name}@%h") for part in program.command()]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=clock.environment(program.environment()), cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """The process's environment with these values, for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
