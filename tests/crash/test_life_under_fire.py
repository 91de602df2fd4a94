"""The long proof: whole lives while every part is killed again and again, databases and broker included."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.local.bff import Bff
from apps.local.checks import check_books
from apps.local.stack import Stack
from tests.support.lives import live
from tests.support.stack import running_stack

TARGETS = (
    "pool-worker", "relayer-worker", "beat", "ledger", "rewards", "protocols", "pool", "relayer", "valkey", "postgres",
)  # fmt: skip
BREATH_SEC = 2.0
USERS = 6
ROUNDS = 3


@contextmanager
def under_fire(stack: Stack, seed: int) -> Iterator[list[str]]:
    """SIGKILL one part after the other, in an order drawn from the seed, each of them before any comes again.

    The next is not killed before everything is up: on a slow machine nothing else would ever happen.
    """
    stop, killed = threading.Event(), []
    order = random.Random(seed)

    def fire() -> None:
        while True:
            for name in order.sample(TARGETS, len(TARGETS)):
                if stop.wait(BREATH_SEC):
                    return
                stack.kill(name)
                killed.append(name)
                stack.wait_until_up()

    with ThreadPoolExecutor(1) as threads:
        firing = threads.submit(fire)
        try:
            yield killed
        finally:
            stop.set()
            firing.result()


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
def test_life__every_part_killed_again_and_again__every_balance_equals_the_chain(seed: int) -> None:
    with running_stack({"CLAIM_POLL_INTERVAL_SEC": "2"}) as stack:
        bff = Bff(stack, timeout_sec=400)
        users = [f"user-{number}" for number in range(USERS)]
        for user in users:
            bff.deposit(user, 100 * ETHER, f"deposit:{user}")
        with under_fire(stack, seed) as killed:
            turns = 0
            while turns < ROUNDS or set(killed) != set(TARGETS):
                live(bff, users, turns)
                turns += 1
        assert [check for check in check_books(bff, users) if not check.ok] == []
        run = dump(bff.reconcile())
        assert (run["verdict"], {line["drift_wei"] for line in run["lines"]}) == ("ok", {"0"})
        made = bff.clients.pool.requests(limit=200)["items"]
        assert {item["status"] for item in made} == {"completed"}
        assert len(made) == turns * (2 * USERS + len(users[::2]))
