"""Every worker of webhooks killed at every boundary: each event comes at least once, in order, and none is lost."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.receiver import Got, Receiver, counted, receiving
from tests.support.webhooks import EVENTS, LIFE
from tests.support.webhooks_killed import Killing, killing_workers


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def killing(make_database: Callable[[str], str], tmp_path: Path) -> Iterator[Killing]:
    with killing_workers(make_database("pool"), tmp_path) as found:
        yield found


BOUNDARIES = {
    "transaction.committing", "transaction.committed", "flow.leased", "webhook.fanned_out", "webhook.sending", "webhook.sent",
}  # fmt: skip


def test_workers__killed_at_every_boundary__each_event_at_least_once_in_order(
    killing: Killing, receiver: Receiver
) -> None:
    killing.hooks.create(receiver.url)
    (request,) = killing.hooks.requests(1)
    killing.hooks.become([request], *LIFE[:2])
    killing.settle()
    assert killing.cuts.keys() >= BOUNDARIES
    receiver.assert_in_order()
    assert receiver.by_request() == {request: [1, 2, 3]}
    assert max(counted(receiver).values()) > 1, "what was sent and not written is sent again"
    assert {one.headers["X-Staking-Event-Id"] for one in receiver.got} == {"event-1", "event-2", "event-3"}


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_workers__killed_at_every_boundary_and_receivers_rude__each_event_at_least_once_in_order_at_each(
    killing: Killing, receiver: Receiver
) -> None:
    rude: list[int | str] = [500, 200, "close", 503, "half", 200, 302, "noise"]
    seen: Counter[int] = Counter()

    def answer(got: Got) -> int | str:
        seen[got.sequence] += 1
        return 200 if seen[got.sequence] > 4 else rude[(got.sequence * 3 + seen[got.sequence]) % len(rude)]

    receiver.answer = answer
    with receiving() as other:
        killing.hooks.create(receiver.url)
        killing.hooks.create(other.url, types=["request.completed"])
        ids = killing.hooks.lives(6)
        killing.settle()
        assert killing.cuts.total() > 100
        receiver.assert_in_order()
        assert {request: len(taken) for request, taken in receiver.by_request().items()} == dict.fromkeys(ids, EVENTS)
        assert {request: len(taken) for request, taken in other.by_request().items()} == dict.fromkeys(ids, 1)
        assert killing.hooks.ask("SELECT count(*) FROM webhook_deliveries WHERE status <> 'delivered'") == 0
