"""Whole lives on a stack that is treated badly meanwhile: what a BFF does, and what goes on beside it in a thread."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from apps.common.wei import ETHER
from apps.local.bff import Bff

T = TypeVar("T")


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


@contextmanager
def again_and_again(pause_sec: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread, with pauses, until the block ends; what fails there fails here."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(pause_sec):
            act()

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        try:
            yield
        finally:
            stop.set()
            working.result()
