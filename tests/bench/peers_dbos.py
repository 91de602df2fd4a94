"""A peer: three no-op steps by DBOS on PostgreSQL. Run in the peers' environment, never in ours.

``peers_dbos.py URL``. Client and worker are one process, which costs less than two. It says ``ready``, then does what
each line of its input asks for: ``burst N``, ``lone N`` (both through a queue), ``direct N`` or ``lone-direct N``.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, DBOSConfig  # type: ignore[import-not-found]

QUEUE = "bench"
CALLERS = 8
POLLING_SEC = 0.1  # a second by default, which costs as much and takes longer


@DBOS.step()  # type: ignore[untyped-decorator]
def first() -> None:
    """Nothing."""


@DBOS.step()  # type: ignore[untyped-decorator]
def second() -> None:
    """Nothing."""


@DBOS.step()  # type: ignore[untyped-decorator]
def third() -> None:
    """Nothing."""


@DBOS.workflow()  # type: ignore[untyped-decorator]
def three() -> None:
    """The same three steps as ours, each of them kept before the next begins."""
    first()
    second()
    third()


def main() -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": sys.argv[1],
        "log_level": "WARNING",
        "application_version": "1",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=POLLING_SEC)
    tell("ready")
    doing = {"burst": burst, "lone": lone, "direct": direct, "lone-direct": lone_direct}
    for line in sys.stdin:
        what, count = line.split()
        tell(doing[what](int(count)))
    DBOS.destroy()


def burst(count: int) -> float:
    """Seconds from the first start to the last end."""
    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as threads:
        handles = list(threads.map(lambda _: DBOS.enqueue_workflow(QUEUE, three), range(count)))
    for handle in handles:
        handle.get_result()
    return time.perf_counter() - started


def direct(count: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as threads:
        list(threads.map(lambda _: three(), range(count)))
    return time.perf_counter() - started


def lone(count: int) -> list[float]:
    """Milliseconds of each, one after the other, from when its start was answered to when its end is known."""
    taken = []
    for _ in range(count):
        handle = DBOS.enqueue_workflow(QUEUE, three)
        started = time.perf_counter()
        handle.get_result(polling_interval_sec=0.002)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def lone_direct(count: int) -> list[float]:
    """As above, from the call itself: there is no answer in between."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        three()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
