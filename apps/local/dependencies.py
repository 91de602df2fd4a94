"""Known weaknesses of what is locked: ``python -m apps.local.dependencies``.

pip-audit asks a public service about every locked package. Where that cannot be reached nothing is known, which is said and
fails nothing: a build without a network is no weakness. One found fails.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from apps.local.programs import ROOT

LOCKS = ("requirements.lock", "requirements-desk.lock", "requirements-dev.lock")
# What is asked about first, alone: where even that finds nobody, the hundred others need not be tried.
FIRST = "waitress"
OPTIONS = ("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "10", "--strict")
TIMEOUT_SEC = 600

Run = Callable[[Sequence[str]], tuple[int, str]]


def main() -> int:
    return audit(run_pip_audit)


def audit(run: Run) -> int:
    """0 where nothing is known against what is locked, or where nobody can be asked; 1 where something is."""
    with tempfile.TemporaryDirectory() as directory:
        first = Path(directory) / "first.txt"
        first.write_text(pin_of((ROOT / LOCKS[0]).read_text(), FIRST))
        code, said = run([*OPTIONS, "-r", str(first)])
    if code == 0 or is_finding(said):
        code, said = run([*OPTIONS, *(word for name in LOCKS for word in ("-r", str(ROOT / name)))])
    if code != 0 and not is_finding(said):
        sys.stderr.write(f"Dependencies are not audited: nobody who knows of weaknesses can be asked.\n{said[-300:]}\n")
        return 0
    sys.stderr.write(said)
    return 1 if code != 0 else 0


def is_finding(said: str) -> bool:
    """Whether pip-audit has found a weakness, as it says in one line before its table."""
    return "known vulnerabilit" in said and "No known" not in said


def pin_of(lock: str, package: str) -> str:
    """The lines of a package in a lock file."""
    start = lock.index(f"\n{package}==") + 1
    lines = lock[start:].splitlines()
    end = next((number for number, line in enumerate(lines) if number and not line.startswith(" ")), len(lines))
    return "\n".join(lines[:end]) + "\n"


def run_pip_audit(arguments: Sequence[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pip_audit", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SEC, check=False)
    except subprocess.TimeoutExpired:
        return 1, "pip-audit did not end in time."
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    raise SystemExit(main())
