"""``make bench NAME=flows``: a workflow of three steps that do nothing, ours beside Temporal and DBOS.

Each system gets bursts in interleaved rounds, and single flows one after the other. Counted is the CPU of every process
that takes part, its database included: what a machine can do is what its cores have time for. Ratios are of workflows
for a second of CPU, and each is the median of the ratios within a round. Then what a waiting backlog costs an idle
system, and ten thousand stakes on the desk's chain. The last line printed is JSON.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.cpu import Meter
from tests.bench.flows_idle import idle
from tests.bench.flows_ours import running_ours
from tests.bench.peers import running_dbos, running_temporal
from tests.bench.stakes import measure
from tests.support.postgres import start_postgres
from tests.support.scratch import scratch

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
WARM_UP = 20
MOST = 5_000
LONE = 40

OURS, TEMPORAL, IN_MEMORY, QUEUE, DIRECT = "ours", "temporal, file", "temporal, memory", "dbos, queue", "dbos, direct"


@dataclass
class System:
    """One way to run the workflow, and what was measured of it."""

    burst: Callable[[int], float]
    lone: Callable[[int], list[float]]
    meter: Meter
    count: int = 0
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[dict[str, float]] = field(default_factory=list)
    lone_ms: list[float] = field(default_factory=list)

    def warm_up(self) -> None:
        """Ever larger bursts tell how many make one of `SECONDS`."""
        count = WARM_UP
        while (seconds := self.burst(count)) < SECONDS / 5:
            count *= 3
        self.count = min(MOST, max(WARM_UP, int(count * SECONDS / seconds)))

    def round(self) -> None:
        before = self.meter.read()
        seconds = self.burst(self.count)
        used = self.meter.since(before)
        self.rates.append(self.count / seconds)
        self.cpu_ms.append({part: each * 1000 / self.count for part, each in used.items()})
        self.lone_ms += self.lone(LONE // ROUNDS)

    @property
    def per_cpu_second(self) -> list[float]:
        return [1000 / sum(parts.values()) for parts in self.cpu_ms]


def main() -> int:
    found = {"bench": "flows", **compare(), **stakes(), "idle_cpu_percent": idle()}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def compare() -> dict[str, Any]:
    """Ours and the peers', in bursts and alone; prints a line each."""
    with _systems() as systems:
        for system in systems.values():
            system.warm_up()
        for _ in range(ROUNDS):
            for system in systems.values():
                system.round()
    for name, system in systems.items():
        _tell(name, system)
    ratios = {"vs_temporal": _ratio(systems, [TEMPORAL]), "vs_dbos": _ratio(systems, [QUEUE, DIRECT])}
    return {"ratios": ratios, "p50_ms": _percentile(systems[OURS].lone_ms, 50)}


@contextmanager
def _systems() -> Iterator[dict[str, System]]:
    """All of them, up and idle: two PostgreSQLs of one kind, so that nobody's backends are counted for another."""
    with ExitStack() as parts:
        directory = Path(parts.enter_context(scratch(on_disk=True)))
        ours = parts.enter_context(running_ours(parts.enter_context(start_postgres(durable=True)), directory))
        dbos = parts.enter_context(running_dbos(parts.enter_context(start_postgres(durable=True))))
        file = parts.enter_context(running_temporal(directory, in_memory=False))
        memory = parts.enter_context(running_temporal(directory, in_memory=True))
        yield {
            OURS: System(ours.burst, ours.lone, ours.meter),
            TEMPORAL: System(file.burst, file.lone, file.meter),
            IN_MEMORY: System(memory.burst, memory.lone, memory.meter),
            QUEUE: System(dbos.burst, dbos.lone, dbos.meter),
            DIRECT: System(
                lambda count: dbos.burst(count, "direct"), lambda count: dbos.lone(count, "lone-direct"), dbos.meter
            ),
        }


def stakes() -> dict[str, float]:
    """Stakes on the desk's chain, accepted and completed a second; prints the time of each phase."""
    found = measure()
    for phase, seconds in found["phases_sec"].items():
        sys.stdout.write(f"stakes, {phase}: {seconds:.3f} s\n")
    return {name: found[name] for name in ("accepted_per_s", "completed_per_s")}


def _ratio(systems: dict[str, System], others: list[str]) -> float:
    """Ours against the better of the others, within each round."""
    rounds = zip(systems[OURS].per_cpu_second, *(systems[other].per_cpu_second for other in others), strict=True)
    ratios: list[float] = [ours / max(theirs) for ours, *theirs in rounds]
    return round(statistics.median(ratios), 2)


def _percentile(values: list[float], percent: int) -> float:
    cuts: list[float] = statistics.quantiles(values, n=100)
    return round(cuts[percent - 1], 1)


def _tell(name: str, system: System) -> None:
    parts = {part: statistics.median(each[part] for each in system.cpu_ms) for part in system.cpu_ms[0]}
    by_part = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
    sys.stdout.write(
        f"{name:<17} bursts of {system.count:>5}: {statistics.median(system.rates):7.1f} workflows/s,"
        f" {statistics.median(system.per_cpu_second):7.1f} a CPU-second,"
        f" {1000 / statistics.median(system.per_cpu_second):7.2f} ms of CPU each ({by_part});"
        f" alone p50 {_percentile(system.lone_ms, 50):.1f} ms, p95 {_percentile(system.lone_ms, 95):.1f} ms\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
