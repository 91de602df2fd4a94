"""The real workers: two beats, workers whose clocks are an hour off either way, a broker flushed again and again, and a
PostgreSQL restarted at once under them: whole lives end right, to the wei."""

import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from apps.common.shapes import dump
from apps.common.wei import ETHER
from apps.local.bff import Bff
from apps.local.checks import check_books
from tests.support.lives import again_and_again, live
from tests.support.shifted_clock import ShiftedClock
from tests.support.stack import beside, running_stack

HOUR_SEC = 3600.0
FLUSH_SEC, RESTART_SEC = 1.0, 20.0
FLUSHES = 5


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_life__two_beats_wrong_clocks_flushed_broker_restarted_postgres__no_wei_off(tmp_path: Path) -> None:
    with ExitStack() as world:
        stack = world.enter_context(running_stack({"CLAIM_POLL_INTERVAL_SEC": "2"}))
        bff = Bff(stack, timeout_sec=500)
        users = [f"user-{number}" for number in range(3)]
        for user in users:
            bff.deposit(user, 100 * ETHER, f"deposit:{user}")
        broker = redis.Redis.from_url(stack.status()["broker_url"])
        order = random.Random(1)
        flushed: list[int] = []
        restarted: list[int] = []

        def flush() -> None:
            if order.random() < 0.6:
                flushed.append(int(broker.dbsize()))
                broker.flushall()

        def restart() -> None:
            restarted.append(stack.processes()["postgres"]["pid"])
            os.kill(restarted[-1], signal.SIGQUIT)  # an immediate shutdown, after which it is started again
            stack.wait_until_up()

        with ExitStack() as rude:
            beside_it = []
            for name, programs, shift_sec in (
                ("fast", ("pool-worker", "relayer-worker", "beat"), HOUR_SEC),
                ("slow", ("pool-worker", "relayer-worker"), -HOUR_SEC),
            ):
                directory = tmp_path / name
                directory.mkdir()
                clock = ShiftedClock(directory, shift_sec)
                beside_it += [rude.enter_context(beside(stack, one, directory, clock)) for one in programs]
            rude.enter_context(again_and_again(FLUSH_SEC, flush))
            rude.enter_context(again_and_again(RESTART_SEC, restart))
            rounds = 0
            while not restarted or len(flushed) < FLUSHES:  # a quick life may end before the first restart
                live(bff, users, rounds)
                rounds += 1
            assert [process.poll() for process in beside_it] == [None] * len(beside_it), "they outlive it all"
        assert [check for check in check_books(bff, users) if not check.ok] == []
        run = dump(bff.reconcile())
        assert (run["verdict"], {line["drift_wei"] for line in run["lines"]}) == ("ok", {"0"})
        made = bff.clients.pool.requests(limit=200)["items"]
        assert {item["status"] for item in made} == {"completed"}
        assert len(made) == rounds * (2 * len(users) + len(users[::2]))
        broker.close()
