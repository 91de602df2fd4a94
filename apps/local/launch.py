"""Become one program of the stack: ``python -m apps.local.launch NAME``, run by the supervisor.

Secrets pass from the home's private file straight into the one process that needs them; they never stand in the
supervisor's configuration or in a command line. PostgreSQL gives up being root here.
"""

import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from apps.local import chain_file
from apps.local.home import Home
from apps.local.postgres import unprivileged_account
from apps.local.programs import ROOT, Programs


@dataclass(frozen=True)
class Command:
    """What a program is: its arguments, its environment, and where it runs."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    directory: str = str(ROOT)

    @property
    def module(self) -> str | None:
        """Of a ``python -m MODULE``, the module."""
        return self.argv[2] if self.argv[:2] == [sys.executable, "-m"] else None

    def execute(self) -> NoReturn:
        os.chdir(self.directory)
        if self.name == "postgres":
            _step_down()
        if self.name == "anvil":
            chain_file.trim(Path(self.argv[self.argv.index("--state") + 1]))
        os.execve(self.argv[0], self.argv, self.environment)


def main(name: str) -> None:
    command_of(name).execute()


def command_of(name: str) -> Command:
    """Read it from the home, which holds every secret of the stack."""
    home = Home.from_environment()
    programs = Programs(home, home.load())
    program = next(program for program in programs.all() if program.name == name)
    return Command(name, program.command(), program.environment())


def commanded(name: str) -> Command:
    """The same for a process that lives on: another one reads the home, so that this one never held other programs'
    secrets."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(writer, "w") as pipe:
                json.dump(asdict(command_of(name)), pipe)
            code = 0
        except Exception:  # noqa: BLE001  # told here; what the supervisor sees is a process that does not start
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return Command(**json.loads(text))


def _step_down() -> None:
    account = unprivileged_account()
    os.chdir("/")
    if account is not None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


if __name__ == "__main__":
    main(sys.argv[1])
