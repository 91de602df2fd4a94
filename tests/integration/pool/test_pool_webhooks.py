"""Webhooks over a real line: each event at least once, in the order of its request, signed, and none lost for a rude receiver."""

import threading
from collections import Counter

from apps.flow import runner
from apps.flow.outcome import Wait
from apps.pool import sweep
from apps.pool.webhooks.flow import IN_FLIGHT, WebhookFlow
from apps.pool.webhooks.models import Webhook
from tests.support.receiver import LONG_SEC, Got, Receiver, counted, receiving, verified
from tests.support.webhooks import EVENTS, LIFE, SECRET, Hooks


def test_event__of_a_request__comes_signed_as_the_feed_shows_it(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url)
    hooks.lives(2)
    hooks.work()
    assert len(receiver.got) == 2 * EVENTS
    start = min(receiver.sequences()) - 1
    feed = hooks.get("/v1/events", after=start, limit=50)["items"]
    assert sorted((one.event for one in receiver.got), key=lambda event: event["sequence"]) == feed
    for got in receiver.got:
        assert verified(got, SECRET) == 1
        assert got.headers["X-Staking-Event-Id"] == f"event-{got.sequence}"
        assert got.headers["X-Staking-Event-Type"] == got.event["type"]
        assert got.headers["X-Staking-Webhook-Id"] == hook["id"]
        assert got.headers["Content-Type"] == "application/json"
    receiver.assert_in_order()
    shown = hooks.deliveries(hook)
    assert {item["id"] for item in shown} == {got.headers["X-Staking-Delivery-Id"] for got in receiver.got}
    assert {(item["status"], item["attempt_count"]) for item in shown} == {("delivered", 1)}
    assert [attempt["answer_status"] for item in shown for attempt in item["attempts"]] == [200] * 2 * EVENTS


def test_receiver__rude_in_every_way__each_event_comes_at_least_once_in_order_and_none_is_lost(
    hooks: Hooks, receiver: Receiver
) -> None:
    rude: list[int | str] = [500, "close", 200, "half", 404, 429, "hang", 200, 503, 302, "noise", "drip", 200]
    seen: Counter[int] = Counter()

    def answer(got: Got) -> int | str:
        """Each event meets some of it before it is taken, or is taken at once."""
        seen[got.sequence] += 1
        return 200 if seen[got.sequence] > 3 else rude[(got.sequence * 5 + seen[got.sequence]) % len(rude)]

    receiver.answer = answer
    hooks.total_sec = 0.1
    hook = hooks.create(receiver.url)
    ids = hooks.lives(8)
    hooks.work_on()
    receiver.assert_in_order()
    assert {request: len(taken) for request, taken in receiver.by_request().items()} == dict.fromkeys(ids, EVENTS)
    assert {item["status"] for item in hooks.deliveries(hook, limit=200)} == {"delivered"}
    assert hooks.get(f"/v1/webhooks/{hook['id']}")["pending"] == 0
    faults = {
        attempt["error"]["code"]
        for item in hooks.deliveries(hook, limit=200)
        for attempt in item["attempts"]
        if attempt["error"]
    }
    assert faults >= {"refused", "redirected", "connection_failed", "no_answer"}


def test_receiver__refuses_one_request__the_others_go_on_and_its_own_events_wait(
    hooks: Hooks, receiver: Receiver
) -> None:
    hook = hooks.create(receiver.url)
    refused, taken = hooks.lives(2)
    receiver.answer = lambda got: 500 if got.event["pool_request_id"] == refused else 200
    hooks.work()
    assert {one.event["pool_request_id"] for one in receiver.taken} == {taken}
    assert len(receiver.taken) == EVENTS
    waiting = [item for item in hooks.deliveries(hook) if item["pool_request_id"] == refused]
    assert [item["attempt_count"] for item in waiting] == [0, 0, 0, 0, 1]
    assert [item["next_attempt_at"] is not None for item in waiting] == [False, False, False, False, True]


def test_replay__begins_before_an_event_that_is_refused__that_one_waits_for_the_earlier_ones_again(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.answer = lambda got: 500 if got.event["type"] == "request.confirming" else 200
    hook = hooks.create(receiver.url)
    hooks.lives(1)
    hooks.work()
    first = min(receiver.sequences())
    receiver.got.clear()
    hooks.act(hook, "replay", after_sequence=first - 1)
    hooks.time_passes()
    hooks.work()
    assert receiver.sequences(receiver.got) == [first, first + 1, first + 2, first + 3]
    due = "SELECT array_agg(sequence) FROM webhook_deliveries WHERE webhook_id = :id AND due_at IS NOT NULL"
    assert hooks.ask(due, id=hook["id"]) == [first + 3]


def test_receiver__hangs__holds_up_no_other_and_gets_so_many_at_a_time(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = lambda _: "hang"
    hooks.total_sec = LONG_SEC
    hooks.create(receiver.url)
    with receiving() as other:
        hooks.create(other.url)
        hooks.requests(2 * IN_FLIGHT)
        stuck = threading.Thread(target=hooks.work)
        stuck.start()
        assert receiver.hangs.wait(LONG_SEC)
        while len(other.taken) < 2 * IN_FLIGHT:  # by whichever worker has it; the test's time limit bounds it
            hooks.deliver()
        receiver.let_go.set()
        stuck.join()
        assert receiver.most_at_once <= IN_FLIGHT
        assert len(receiver.got) == IN_FLIGHT, "and then it is left alone"


def test_endpoint__unwell__tried_by_one_at_a_time_and_all_at_once_when_it_answers_again(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.answer = lambda _: 503
    hook = hooks.create(receiver.url)
    hooks.requests(20)
    hooks.work()
    tried = len(receiver.got)
    assert tried == IN_FLIGHT
    shown = hooks.get(f"/v1/webhooks/{hook['id']}")
    assert (shown["failures"] >= IN_FLIGHT, shown["paused_until"] is not None, shown["pending"]) == (True, True, 20)
    hooks.requests(1)
    hooks.work()
    assert len(receiver.got) == tried, "a new event does not end its pause"
    hooks.execute("UPDATE webhooks SET paused_until = NULL, next_run_at = now()")
    hooks.deliver()
    assert len(receiver.got) == tried + 1
    receiver.answer = lambda _: 200
    hooks.execute("UPDATE webhooks SET paused_until = NULL, next_run_at = now()")
    hooks.deliver()
    assert len(receiver.taken) == 21
    assert hooks.get(f"/v1/webhooks/{hook['id']}")["failures"] == 0


def test_retry_after__asked_for__nothing_is_sent_before(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer, receiver.headers = lambda _: 429, {"Retry-After": "1800"}
    hook = hooks.create(receiver.url)
    hooks.requests(1)
    hooks.work()
    wait = "SELECT extract(epoch FROM {} - now()) > 1700 FROM {} WHERE {} = :id"
    for column, table, name in (
        ("paused_until", "webhooks", "id"),
        ("next_run_at", "webhooks", "id"),
        ("due_at", "webhook_deliveries", "webhook_id"),
    ):
        assert hooks.ask(wait.format(column, table, name), id=hook["id"]) is True, column


def test_retry_after__asked_for_by_one_answer_among_good_ones__nothing_is_sent_before_either(
    hooks: Hooks, receiver: Receiver
) -> None:
    hooks.create(receiver.url)
    ids = hooks.requests(2 * IN_FLIGHT)
    receiver.answer, receiver.headers = (
        lambda got: 429 if got.event["pool_request_id"] == ids[0] else 200,
        {"Retry-After": "9"},
    )
    hooks.work()
    assert len(receiver.got) == IN_FLIGHT
    receiver.answer = lambda _: 200
    hooks.time_passes()
    hooks.work()
    assert len(receiver.taken) == 2 * IN_FLIGHT


def test_gone__answered__disabled_and_nothing_lost_once_it_is_enabled(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = lambda _: 410
    hook = hooks.create(receiver.url)
    hooks.lives(1)
    hooks.work()
    shown = hooks.get(f"/v1/webhooks/{hook['id']}")
    assert (shown["status"], shown["reason"]["code"]) == ("disabled", "gone")
    (more,) = hooks.requests(1)
    hooks.time_passes()
    hooks.work()
    assert len(receiver.got) == 1
    receiver.answer = lambda _: 204
    assert hooks.do(f"/v1/webhooks/{hook['id']}/enable")["reason"] is None
    hooks.work()
    receiver.assert_in_order()
    assert len(receiver.taken) == EVENTS + 1
    assert more in receiver.by_request()


def test_dead_letter__after_three_days__makes_way_and_is_sent_again_by_ops(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = lambda got: 400 if got.event["type"] == "request.queued" else 200
    hook = hooks.create(receiver.url)
    hooks.lives(1)
    hooks.work()
    assert hooks.get(f"/v1/webhooks/{hook['id']}")["dead_letters"] == 0
    hooks.execute("UPDATE webhook_deliveries SET pending_since = now() - interval '73 hours' WHERE status = 'pending'")
    hooks.time_passes()
    hooks.work()
    assert [one.event["type"] for one in receiver.taken] == [f"request.{status}" for status in LIFE]
    (dead,) = hooks.deliveries(hook, status="dead_letter")
    assert (dead["type"], dead["attempt_count"], dead["next_attempt_at"]) == ("request.queued", 2, None)
    assert dead["attempts"][0]["error"] == {"code": "refused", "detail": "Answered 400; only 2xx takes an event."}
    path = f"/v1/webhooks/{hook['id']}/deliveries"
    assert hooks.post(f"{path}/{hooks.deliveries(hook)[0]['id']}/retry").get_json()["code"] == "not_a_dead_letter"
    receiver.answer = lambda _: 200
    again = hooks.do(f"{path}/{dead['id']}/retry")
    assert (again["pending"], again["dead_letters"]) == (1, 0)
    hooks.work()
    assert receiver.taken[-1].headers["X-Staking-Delivery-Id"] == dead["id"]
    assert hooks.do(f"{path}/retry")["pending"] == 0


def test_sweep__events_and_deliveries_there__hints_at_each_and_at_nothing_afterwards(
    hooks: Hooks, receiver: Receiver
) -> None:
    hooks.work()
    hooks.create(receiver.url)
    hooks.requests(1)
    hints = hooks.house.hints

    def swept() -> set[str]:
        hints.clear()
        sweep.wake(hooks.house.context)
        return {task for task, _ in hints if task.startswith("tasks.webhooks")}

    assert swept() == {"tasks.webhooks.fan_out"}
    hooks.execute("UPDATE webhooks SET next_run_at = now() WHERE status = 'enabled'")
    assert swept() == {"tasks.webhooks.fan_out", "tasks.webhooks.deliver"}
    hooks.work()
    assert swept() == set()
    assert counted(receiver).total() == 1


def test_step__something_comes_while_it_ends__the_endpoint_is_due_at_once(hooks: Hooks, receiver: Receiver) -> None:
    """A worker that found nothing more must not put the endpoint off past what came after its look."""
    hook = hooks.create(receiver.url)
    hooks.work()

    class Interrupted(WebhookFlow):
        def _rest(self, row: Webhook) -> Wait:
            rest = super()._rest(row)
            hooks.act(hook, "test")
            return rest

    hooks.execute("UPDATE webhooks SET next_run_at = now() WHERE status = 'enabled'")
    assert runner.advance(Interrupted(hooks.house.context)) == 1
    assert receiver.got == []
    assert hooks.deliver() == 1
    assert counted(receiver).total() == 1
