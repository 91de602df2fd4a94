"""The long proof: whole lives while every part is killed again and again, databases and broker included."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import pytest

from apps.common.wei import ETHER
from apps.local.bff import Bff
from apps.local.checks import check_books
from apps.local.stack import Stack
from tests.support.stack import running_stack

T = TypeVar("T")

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


def for_each(bff: Bff, users: list[str], call: Callable[[str], T]) -> list[T]:
    """What a BFF does when a call fails: the same call again, under the same message_id."""
    return [bff.wait("an answer", partial(call, user), lambda _: True) for user in users]


def live(bff: Bff, users: list[str], turn: int) -> None:
    """Everybody stakes; the protocol gains or loses; everybody compounds and every second one leaves with a part."""
    pool = bff.clients.pool
    bff.finish(for_each(bff, users, lambda user: pool.stake(f"stake:{user}:{turn}", user, 7 * ETHER // 3)))
    bff.oracle.rebase((-1) ** turn * ETHER * 40)
    claims = for_each(bff, users, lambda user: pool.claim_reward(f"claim:{user}:{turn}", user))
    leaving = for_each(bff, users[::2], lambda user: pool.unstake(f"unstake:{user}:{turn}", user, ETHER // 2))
    bff.finish(claims)
    bff.finish(leaving, "waiting")
    bff.oracle.finalize()
    bff.finish(leaving)


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
        run = bff.reconcile()
        assert (run["verdict"], {line["drift_wei"] for line in run["lines"]}) == ("ok", {"0"})
        made = bff.clients.pool.requests(limit=200)["items"]
        assert {item["status"] for item in made} == {"completed"}
        assert len(made) == turns * (2 * USERS + len(users[::2]))
