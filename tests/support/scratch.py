"""Where servers of tests keep their data: in memory where there is room for it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
# A database takes some eight megabytes, and few are there at a time: this is room for many servers side by side.
ENOUGH = 3 * 2**30


@contextmanager
def scratch(*, on_disk: bool = False) -> Iterator[Path]:
    """A directory that is gone when the block ends; `on_disk` for measurements.

    A database is three hundred files: on a disk they cost a tenth of a second to make and a quarter to remove. As root,
    PostgreSQL runs as somebody else, who must be able to walk down to its data.
    """
    in_memory = not on_disk and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ENOUGH
    with tempfile.TemporaryDirectory(prefix="staking-tests-", dir=MEMORY if in_memory else None) as directory:
        path = Path(directory)
        path.chmod(0o711)
        yield path
