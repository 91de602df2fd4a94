"""A program that is a fork of the supervisor finds and leaves what a process of its own would have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.local.programs import ROOT

# What supervisord does before it starts a program, as far as the program could notice.
PARENT = """
import os, signal, sys
from apps.local.forking import _run
from apps.local.launch import Command
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGHUP, lambda *_: None)
command = Command("one", [sys.executable, "-m", "program", "--flag", "word"], {"OWN": "yes"}, sys.argv[1])
os._exit(_run(command))
"""
SAYS = """
import json, os, signal, sys, threading, atexit
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(lambda: None)
threading.Thread(target=lambda: threading.Event().wait(0.1) or print("thread")).start()
atexit.register(lambda: print("last"))
default = [signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
print(json.dumps([sys.argv[1:], dict(os.environ), default, os.getcwd(), __name__]))
"""


def run(directory: Path, program: str) -> subprocess.CompletedProcess[str]:
    (directory / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{directory}", "THEIRS": "secret"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PARENT, str(directory)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


def test_fork__becomes_a_program__its_own_environment_arguments_signals_and_end(tmp_path: Path) -> None:
    ended = run(tmp_path, SAYS)
    said, *after = ended.stdout.splitlines()
    assert json.loads(said) == [["--flag", "word"], {"OWN": "yes"}, [True] * 3, str(tmp_path), "__main__"]
    assert (after, ended.returncode) == (["thread", "last"], 0)


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no settings')", 1, "no settings"),
        ("raise ValueError('broken')", 1, "ValueError: broken"),
    ],
)
def test_fork__program_ends__as_the_interpreter_would_end_it(
    program: str, code: int, words: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, program)
    assert (ended.returncode, words in ended.stderr) == (code, True)


def test_fork__reads_its_command__holds_no_other_programs_secret(tmp_path: Path) -> None:
    script = """
import gc, sys
from pathlib import Path
from apps.local.home import Home
from apps.local.launch import commanded, command_of
home = Home(Path(sys.argv[1]))
state = home.create(separate_custody=False)
state.ports = {name: 20000 + n for n, name in enumerate(
    ("postgres", "valkey", "anvil", "ledger", "protocols", "rewards", "pool", "relayer", "flower", "supervisor"))}
home.save(state)
found = commanded("ledger")
assert found == command_of("ledger")
assert state.operator_key not in str(found)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STAKING_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120, env=environment, check=True)
