"""A hint that is left out because one is under way is never lost, whenever its row comes; nor is one that the broker loses."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from celery import Celery

from apps.common.database import transaction
from apps.common.doorbell import MARK_SEC, doorbell_of
from apps.common.hint_task import HintTask
from apps.flow import lease
from apps.flow.hints import publisher
from apps.flow.runner import advance
from apps.flow.sweep import wake
from tests.support.shop import Shop, open_shop
from tests.support.web import broker

TASK, MARK = "shop.orders.advance", "hint:shop.orders.advance:"
MANY = [f"o{number:04}" for number in range(1_000)]


@dataclass
class Shopkeeper:
    """The shop behind a real broker: hints are published to it, and a worker takes what it finds there."""

    shop: Shop
    client: redis.Redis
    publish: Callable[[str, str | None], None]
    task: Any
    taken: int = field(default=0)

    def waiting(self) -> int:
        return int(self.client.llen("pool"))

    def lose_message(self) -> None:
        """A worker takes it, and dies before it has looked at anything."""
        assert self.client.lpop("pool") is not None

    def work(self) -> None:
        """Take messages until there are none."""
        while self.client.lpop("pool") is not None:
            self.taken += 1
            self.task()

    def place(self, *order_ids: str) -> None:
        """As any publisher does it: the row, the commit, the hint."""
        self.shop.place(*order_ids)
        self.publish(TASK, None)

    def shipped(self) -> int:
        return self.shop.statuses().count("shipped")


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    with broker() as url:
        client = redis.Redis.from_url(url)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                continue
        yield url


@pytest.fixture
def keeper(make_database: Callable[[str], str], broker_url: str) -> Iterator[Shopkeeper]:
    client = redis.Redis.from_url(broker_url)
    client.flushall()
    with open_shop(make_database("pool")) as shop:
        publish = publisher(broker_url, "pool")
        shop.flow.publish = publish
        app = Celery("shop", task_cls=HintTask, set_as_current=False)
        app.conf.update(broker_url=broker_url)

        def advance_orders() -> int:
            return advance(shop.flow)

        # Of this app alone: a shared task would be registered with every app that a later test of this process makes.
        yield Shopkeeper(shop, client, publish, app.task(name=TASK, shared=False)(advance_orders))
    client.close()


@pytest.mark.parametrize("when", ["before_the_mark_is_gone", "between_mark_and_look", "after_the_look"])
def test_hint__its_row_comes_while_a_worker_begins__is_never_lost(
    keeper: Shopkeeper, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher acts at a moment of the worker's that is chosen, once."""
    moments = iter(["now"])

    def now() -> None:
        for _ in moments:
            keeper.place("late")

    keeper.place("early")
    doorbell = doorbell_of(str(keeper.task.app.conf.broker_url))
    take_away = doorbell.answer

    def answer(task: str, row_id: str | None, rest_ms: int) -> None:
        if when == "before_the_mark_is_gone":
            now()
        take_away(task, row_id, rest_ms)
        if when == "between_mark_and_look":
            now()

    look = lease.acquire

    def acquire(*given: Any, **more: Any) -> Any:
        found = look(*given, **more)
        if when == "after_the_look":
            now()
        return found

    monkeypatch.setattr(doorbell, "answer", answer)
    monkeypatch.setattr("apps.flow.runner.acquire", acquire)
    keeper.work()
    assert keeper.shipped() == 2
    # Only what came before the mark was gone was left out: the look that followed saw its row.
    assert keeper.taken == (1 if when == "before_the_mark_is_gone" else 2)


def test_burst__a_thousand_rows__a_few_messages_and_one_more_for_each_hundred_that_a_worker_takes(
    keeper: Shopkeeper,
) -> None:
    keeper.shop.place(*MANY)
    for _ in MANY:
        keeper.publish(TASK, None)
    rung = keeper.waiting()
    assert rung < 10, "one, and one more each time that a mark has run out meanwhile"
    keeper.work()
    assert keeper.shipped() == len(MANY)
    assert keeper.taken <= rung + len(MANY) // keeper.shop.flow.rows_per_message


def test_task_that_rests__hints_after_its_start__are_left_out_until_the_rest_is_over(keeper: Shopkeeper) -> None:
    keeper.task.rest_ms = 60_000
    keeper.place("o1")
    keeper.work()
    keeper.place("o2")
    assert keeper.waiting() == 0
    assert MARK_SEC * 1_000 < int(keeper.client.pttl(MARK)) <= 60_000
    keeper.client.delete(MARK)  # the rest is over
    keeper.publish(TASK, None)
    keeper.work()
    assert keeper.shipped() == 2


def test_broker__flushed__the_next_hint_goes_out_and_nothing_is_lost(keeper: Shopkeeper) -> None:
    keeper.place("o1")
    keeper.client.flushall()
    keeper.place("o2")
    assert keeper.waiting() == 1
    keeper.work()
    assert keeper.shipped() == 2


def test_broker__flushed_and_nothing_more_comes__the_sweep_rings(keeper: Shopkeeper) -> None:
    keeper.place("o1")
    keeper.client.flushall()
    assert wake(keeper.shop.sessions, keeper.publish, {keeper.shop.page.Order: TASK}) == 1
    keeper.work()
    assert keeper.shipped() == 1


def test_broker__refuses_the_message_after_the_mark_was_set__the_next_hint_goes_out_at_once(keeper: Shopkeeper) -> None:
    keeper.client.set("pool", "no list, so that nothing can be put on it")
    keeper.place("o1")
    assert keeper.client.exists(MARK) == 0
    keeper.client.delete("pool")
    keeper.publish(TASK, None)
    assert keeper.waiting() == 1
    keeper.work()
    assert keeper.shipped() == 1


def test_worker__dies_with_the_message__its_mark_runs_out_and_the_sweep_rings_again(keeper: Shopkeeper) -> None:
    keeper.place("o1")
    keeper.lose_message()
    wake(keeper.shop.sessions, keeper.publish, {keeper.shop.page.Order: TASK})
    assert keeper.waiting() == 0, "its mark still says that a hint is under way"
    assert 0 < keeper.client.pttl(MARK) <= MARK_SEC * 1000
    keeper.client.pexpire(MARK, 0)  # that time is over
    wake(keeper.shop.sessions, keeper.publish, {keeper.shop.page.Order: TASK})
    keeper.work()
    assert keeper.shipped() == 1


def test_broker__away__publisher_and_worker_go_on_and_the_row_is_done(keeper: Shopkeeper) -> None:
    keeper.task.app.conf.update(broker_url="redis://127.0.0.1:1/0")
    keeper.shop.flow.publish = keeper.publish = publisher("redis://127.0.0.1:1/0", "pool")
    keeper.place("o1")
    assert keeper.waiting() == 0
    keeper.task()  # what a worker that was reached before would do
    assert keeper.shipped() == 1
    with transaction(keeper.shop.sessions) as session:
        assert session.get_one(keeper.shop.page.Order, "o1").lease_token is None
