"""A crash point kills when named, at the hit named, and otherwise does nothing."""

import os
import subprocess
import sys

import pytest

PROGRAM = "from apps.common.crashpoint import crashpoint\nfor _ in range(3):\n    crashpoint('here'); print('alive')"


@pytest.mark.parametrize(
    ("wanted", "code", "lines"),
    [("", 0, 3), ("there", 0, 3), ("here", -9, 0), ("here:3", -9, 2), ("here:4", 0, 3), ("*:2", -9, 1)],
)
def test_crashpoint__setting__killed_or_not(wanted: str, code: int, lines: int) -> None:
    environment = {**os.environ, "STAKING_CRASHPOINT": wanted, "PYTHONUNBUFFERED": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (finished.returncode, finished.stdout.count("alive")) == (code, lines)
    assert finished.stderr == ("killed at here\n" if code else "")
