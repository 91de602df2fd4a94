"""The stack's supervisor: supervisord, whose Python programs are forks of what it has imported once.

``python -m apps.local.forking -c CONFIGURATION``. The stack has nine Python programs on the same libraries. Imported by
each for itself, these take a second or two of CPU a program, more than all else that a start does. So the supervisor imports
them before it starts anything, and a program is a fork of it that runs the module which ``python -m`` would have run.

Only libraries are imported ahead, and of ours nothing that reads an environment: each program has settings of its own. A
program that is no Python is executed as supervisord would have done it; so is every program where a fork that does not
execute is unsafe, which it is on macOS.
"""

import atexit
import gc
import importlib
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from supervisor import supervisord
from supervisor.options import ServerOptions

from apps.local.launch import Command, commanded

# What the programs import first; each brings most of what it needs in turn.
LIBRARIES = (
    "alembic.command",
    "celery.app.trace",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.worker.consumer",
    "coincurve",
    "eth_account",
    "flask_smorest",
    "flower.command",
    "kombu.transport.redis",
    "marshmallow_dataclass",
    "prometheus_client",
    "psycopg2.extras",
    "requests",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "sqlalchemy.orm",
    "structlog",
    "uuid_utils",
    "waitress.server",
)
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2)


def main(arguments: list[str]) -> None:
    if can_fork():
        for name in LIBRARIES:
            importlib.import_module(name)
        # What is there by now stays where it is, in pages that all programs share.
        gc.freeze()
        supervisord.ServerOptions = _ForkingOptions
    supervisord.main(arguments)
    # All is stopped and its file is removed; to take apart what was imported would be a second of CPU more.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def can_fork() -> bool:
    """Whether a process that has imported much may fork and go on without executing another program."""
    return sys.platform == "linux"


class _ForkingOptions(ServerOptions):  # type: ignore[misc]  # supervisor has no types
    """Supervisord's access to the system, of which starting a program is ours."""

    def execve(self, _filename: str, argv: list[str], _env: dict[str, str]) -> None:
        """Called in the child; does not return."""
        command = commanded(argv[-1])
        if command.module is None:
            command.execute()
        os._exit(_run(command))


def _run(command: Command) -> int:
    """Be the program from here on; returns the code with which the process is to end."""
    code: Any = 0
    try:
        _begin(command)
        runpy.run_module(str(command.module), run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:  # noqa: BLE001  # as the interpreter does it: whatever it is, it is printed and ends the process
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    _finish()
    return code or 0


def _begin(command: Command) -> None:
    """What a new process finds, and a fork of supervisord does not: its own environment, signals, arguments and streams."""
    os.environ.clear()
    os.environ.update(command.environment)
    time.tzset()
    Path("/proc/self/comm").write_text(command.name)  # by which `top` and `pgrep` know it
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(command.directory)
    sys.argv = command.argv[2:]
    streams = [os.fdopen(number, mode, buffering=1, closefd=False) for number, mode in enumerate("rww")]
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        vars(sys).update({name: stream, f"__{name}__": stream})


def _finish() -> None:
    """What the interpreter does at its end. It is not let run: the objects of supervisord in this process hold numbers of
    files that are now this program's."""
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does for its own forks
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
