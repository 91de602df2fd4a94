"""Relayer workers as processes of their own, to be killed and frozen: forked from a server that has the imports."""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from tests.support.relayer import CHAIN_ID, CUSTODY, CUSTODY_KEY, OPERATOR, OPERATOR_KEY

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    ["relayer", "relayer.tasks", "tests.support.naive", "tests.support.pool", "tasks.entry"]
)

PAUSE_SEC = 0.02
# The server keeps the environment of the test that started it: what that test had set must not reach others' workers.
_OUTSIDE = dict(os.environ)


def worker_environment(database_url: str, rpc_urls: Sequence[str], **changes: str) -> dict[str, str]:
    """The relayer's own settings, as its real processes read them."""
    parts = urlsplit(database_url)
    return {
        "DB_HOST": parts.hostname or "",
        "DB_PORT": str(parts.port),
        "DB_USER": unquote(parts.username or ""),
        "DB_PASSWORD": unquote(parts.password or ""),
        "DB_NAME": parts.path.strip("/"),
        "RPC_URL": ",".join(rpc_urls),
        "CHAIN_ID": str(CHAIN_ID),
        "SIGNER_KEYS": f"{OPERATOR_KEY},0x{CUSTODY_KEY}",
        "CUSTODY_ETH_ADDRESS": CUSTODY,
        "RELAYER_OPERATOR_ADDRESS": OPERATOR,
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",  # nobody listens
        **changes,
    }


class Worker:
    """A process that does `work` under an environment, dies where `STAKING_CRASHPOINT` says, and ends with the test."""

    def __init__(self, work: Callable[[], None], environment: dict[str, str], log_path: str = os.devnull) -> None:
        self.process: ForkServerProcess = _forkserver.Process(
            target=_run, args=(work, {**_OUTSIDE, **environment}, log_path), daemon=True
        )
        self.process.start()

    def dead(self, wait_sec: float = 0.0) -> bool:
        self.process.join(wait_sec)
        return self.process.exitcode is not None

    def killed_itself(self) -> bool:
        return self.process.exitcode == -signal.SIGKILL

    def signal(self, number: int) -> None:
        os.kill(self.process.pid or 0, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(30)


def pump_forever() -> None:
    """What beat and the worker do: tick after tick of the real task."""
    from relayer.tasks import pump

    while True:
        pump()
        time.sleep(PAUSE_SEC)


def pump_once() -> None:
    from relayer.tasks import pump

    pump()


class Mother:
    """A process that has done `warm` once, before this is made, and forks: its children begin in milliseconds, and die as any
    process does."""

    def __init__(self, warm: Callable[[], None], environment: dict[str, str], log_path: str) -> None:
        self._orders, theirs = _forkserver.Pipe()
        serve = partial(_serve, warm, theirs)
        self._process: ForkServerProcess = _forkserver.Process(
            target=_run, args=(serve, {**_OUTSIDE, **environment}, log_path), daemon=True
        )
        self._process.start()
        theirs.close()
        self._orders.recv()

    def start(self, work: Callable[[], None], point: str = "") -> int:
        """Fork a child that does `work` and dies at `point`; returns its process id."""
        self._orders.send((work, point))
        return int(self._orders.recv())

    def halted(self, child: int) -> int | None:
        """Wait until a child has stopped itself, for None, or has ended, for how."""
        self._orders.send(child)
        found: int | None = self._orders.recv()
        return found

    def ended(self) -> dict[int, int]:
        """Wait for all children that were started and not seen to end; returns how each ended, negative for a signal."""
        self._orders.send(None)
        found: dict[int, int] = self._orders.recv()
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.join(30)
        self._orders.close()


def _serve(warm: Callable[[], None], orders: "Connection[object, object]") -> None:
    warm()
    orders.send(None)
    children: list[int] = []
    while True:
        order: Any = orders.recv()
        if order is None:
            orders.send({child: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
            children.clear()
            continue
        if isinstance(order, int):
            status = os.waitpid(order, os.WUNTRACED)[1]
            stopped = os.WIFSTOPPED(status)
            if not stopped:
                children.remove(order)
            orders.send(None if stopped else os.waitstatus_to_exitcode(status))
            continue
        child = os.fork()
        if child == 0:
            _child(*order)
        children.append(child)
        orders.send(child)


def _child(work: Callable[[], None], point: str) -> NoReturn:
    os.environ["STAKING_CRASHPOINT"] = point
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  # the child ends here, whatever it was
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(work: Callable[[], None], environment: dict[str, str], log_path: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    work()
