"""Become one program of the stack: ``python -m apps.local.launch NAME``, run by the supervisor.

Secrets pass from the home's private file straight into the one process that needs them; they never stand in the
supervisor's configuration or in a command line. PostgreSQL gives up being root here.
"""

import os
import sys

from apps.local.home import Home
from apps.local.postgres import unprivileged_account
from apps.local.programs import ROOT, Programs


def main(name: str) -> None:
    home = Home.from_environment()
    program = next(program for program in Programs(home, home.load()).all() if program.name == name)
    command = program.command()
    os.chdir(ROOT)
    if name == "postgres":
        _step_down()
    os.execve(command[0], command, program.environment())


def _step_down() -> None:
    account = unprivileged_account()
    os.chdir("/")
    if account is not None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


if __name__ == "__main__":
    main(sys.argv[1])
