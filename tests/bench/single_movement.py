"""``make bench NAME=single_movement``: one movement by the database's function, against the same as a batch of one.

One durable PostgreSQL, one client, the two taken in turns; medians of what each call took.
"""

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable

from apps.clients.shapes.ledger import NewMovement
from tests.bench.ledger import deposit, ledger_database, ledger_service
from tests.support.postgres import start_postgres

CALLS = int(os.environ.get("BENCH_CALLS", "3000"))


def main() -> int:
    with start_postgres(durable=True) as server:
        service = ledger_service(ledger_database(server))
        ways: dict[str, Callable[[NewMovement], object]] = {
            "function": service.post,
            "batch_of_one": lambda new: service.post_batch([new]),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        draw = random.Random(1)
        for _ in range(CALLS):
            for name, way in ways.items():
                new = deposit(draw)
                start = time.perf_counter()
                way(new)
                took[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in took.items()}
    for name, median in medians.items():
        sys.stdout.write(f"{name:<14} {median * 1000:.3f} ms\n")
    ratio = round(medians["batch_of_one"] / medians["function"], 2)
    sys.stdout.write(json.dumps({"bench": "single_movement", "ratios": {"batch_of_one_vs_function": ratio}}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
