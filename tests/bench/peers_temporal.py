"""A peer: three no-op activities by Temporal's Python SDK. Run in the peers' environment, never in ours.

``peers_temporal.py ADDRESS``, of a server that runs. Client and worker are one process, which costs less than two. It
says ``ready``, then does what each line of its input asks for: ``burst N`` or ``lone N``.
"""

import asyncio
import json
import sys
import time
import uuid
from datetime import timedelta

from temporalio import activity, workflow  # type: ignore[import-not-found]
from temporalio.client import Client  # type: ignore[import-not-found]
from temporalio.worker import UnsandboxedWorkflowRunner, Worker  # type: ignore[import-not-found]

QUEUE = "bench"
AT_ONCE = 8  # starts and waits under way; more of them cost the server more each


@activity.defn  # type: ignore[untyped-decorator]
async def first() -> None:
    """Nothing."""


@activity.defn  # type: ignore[untyped-decorator]
async def second() -> None:
    """Nothing."""


@activity.defn  # type: ignore[untyped-decorator]
async def third() -> None:
    """Nothing."""


@workflow.defn
class Three:
    """The same three steps as ours, each of them kept before the next begins."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self) -> None:
        for step in (first, second, third):
            await workflow.execute_activity(step, start_to_close_timeout=timedelta(seconds=30))


async def main() -> None:
    client = await Client.connect(sys.argv[1])
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[Three],
        activities=[first, second, third],
        # Cheaper than the sandbox, and nothing here needs it.
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        tell("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            what, count = line.split()
            tell(await {"burst": burst, "lone": lone}[what](client, int(count)))


async def burst(client: Client, count: int) -> float:
    """Seconds from the first start to the last end."""
    room = asyncio.Semaphore(AT_ONCE)
    started = time.perf_counter()

    async def one() -> None:
        async with room:
            await client.execute_workflow(Three.run, id=str(uuid.uuid4()), task_queue=QUEUE)

    await asyncio.gather(*(one() for _ in range(count)))
    return time.perf_counter() - started


async def lone(client: Client, count: int) -> list[float]:
    """Milliseconds of each, one after the other, from when its start was answered to when its end is known."""
    taken = []
    for _ in range(count):
        handle = await client.start_workflow(Three.run, id=str(uuid.uuid4()), task_queue=QUEUE)
        started = time.perf_counter()
        await handle.result()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def tell(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
