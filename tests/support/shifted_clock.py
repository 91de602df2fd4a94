"""A process whose wall clock is wrong: by so many seconds from its start, and by others whenever a test says so.

    with shifted_clock(directory) as clock:
        process = subprocess.Popen(argv, env=clock.environment(os.environ))
        clock.shift(-3600)

The process imports `tests/support/shifted/sitecustomize.py` before anything else; the monotonic clock stays true, as it
does on a host whose wall clock is set.
"""

import os
from collections.abc import Mapping
from pathlib import Path

SITE = Path(__file__).parent / "shifted"


class ShiftedClock:
    """One clock for any number of processes; the seconds are read from a file, so that they can change meanwhile."""

    def __init__(self, directory: Path, shift_sec: float = 0.0) -> None:
        self._file = directory / "clock-shift"
        self.shift(shift_sec)

    def shift(self, seconds: float) -> None:
        """From now on the clock is off by this much, not by what it was before."""
        partial = self._file.with_suffix(".new")
        partial.write_text(repr(float(seconds)))
        partial.rename(self._file)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join(part for part in (str(SITE), base.get("PYTHONPATH", "")) if part)
        return {**base, "PYTHONPATH": path, "CLOCK_SHIFT_FILE": str(self._file)}
