"""Webhooks over a real line: each event at least once, in the order of its request, signed, and none lost for a rude receiver."""

import hashlib
import hmac
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from apps.flow import runner
from apps.flow.outcome import Wait
from apps.pool import sweep
from apps.pool.trim import trim_deliveries
from apps.pool.webhooks.flow import IN_FLIGHT, WebhookFlow
from apps.pool.webhooks.models import Webhook
from tests.support.pool import PoolHouse, pool_house
from tests.support.receiver import LONG_SEC, Got, Receiver, counted, receiving
from tests.support.webhooks import LIFE, SECRET, Hooks

EVENTS = 1 + len(LIFE)


@pytest.fixture(scope="module")
def own_house(make_database: Callable[[str], str]) -> PoolHouse:
    return pool_house(make_database("pool"))


@pytest.fixture
def hooks(own_house: PoolHouse) -> Iterator[Hooks]:
    own_house.hints.clear()
    found = Hooks(own_house, own_house.client())
    yield found
    found.stop_all()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def verified(got: Got, secret: str) -> int:
    """How many of a delivery's signatures are of this secret: the few lines of a receiver that knows nothing of this code."""
    parts = [part.split("=", 1) for part in got.headers["X-Staking-Signature"].split(",")]
    (time,) = (value for name, value in parts if name == "t")
    expected = hmac.new(secret.encode(), time.encode() + b"." + got.body, hashlib.sha256).hexdigest()
    assert abs(datetime.now(UTC).timestamp() - int(time)) < 300
    return sum(name == "v1" and hmac.compare_digest(value, expected) for name, value in parts)


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
    assert hooks.do(f"{path}/{dead['id']}/retry") == {"retried": 1}
    hooks.work()
    assert receiver.taken[-1].headers["X-Staking-Delivery-Id"] == dead["id"]
    assert hooks.do(f"{path}/retry") == {"retried": 0}


def test_rotation__under_way__signed_by_both_until_its_end(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url)
    hooks.do(f"/v1/webhooks/{hook['id']}/rotate-secret")  # its answer was lost
    shown = hooks.do(f"/v1/webhooks/{hook['id']}/rotate-secret", overlap_sec=3600)
    new = shown["secret"]
    hooks.requests(1)
    hooks.work()
    got = receiver.got[0]
    assert (verified(got, SECRET), verified(got, new)) == (1, 1), "what the receiver knew is still in force"
    assert got.headers["X-Staking-Signature"].count("v1=") == 2
    assert shown["old_secret_until"] is not None
    hooks.execute("UPDATE webhooks SET old_secret_until = now()")
    hooks.requests(1)
    hooks.work()
    assert (verified(receiver.got[1], SECRET), verified(receiver.got[1], new)) == (0, 1)
    given = hooks.do(f"/v1/webhooks/{hook['id']}/rotate-secret", secret="x" * 24, overlap_sec=0)
    assert (given["secret"], given["old_secret_until"]) == ("x" * 24, None)


def test_secret__shown_once__and_never_again_by_answers_or_tables(hooks: Hooks, receiver: Receiver) -> None:
    body = {"message_id": "once", "url": receiver.url}
    made = hooks.do("/v1/webhooks", **body)
    assert made["secret"].startswith("whsec_")
    again = hooks.post("/v1/webhooks", **body)
    assert (again.status_code, again.get_json()["secret"], again.headers["Idempotent-Replay"]) == (200, None, "true")
    hooks.requests(1)
    hooks.work()
    texts = [str(hooks.get("/v1/webhooks")), str(hooks.get(f"/v1/webhooks/{made['id']}")), str(hooks.deliveries(made))]
    for table in ("webhooks", "webhook_deliveries", "webhook_attempts", "flow_events"):
        texts.append(str(hooks.ask(f"SELECT string_agg(t::text, ' ') FROM {table} t")))
    assert not any(made["secret"] in shown for shown in texts)
    assert verified(receiver.got[0], made["secret"]) == 1


def test_create__same_message_id_with_another_body__names_what_differs(hooks: Hooks, receiver: Receiver) -> None:
    body = {"message_id": "same", "url": receiver.url, "secret": "s" * 24, "types": ["request.completed"]}
    assert hooks.post("/v1/webhooks", **body).status_code == 201
    other = hooks.post("/v1/webhooks", **{**body, "secret": "t" * 24, "types": ["*"]})
    assert (other.status_code, sorted(other.get_json()["errors"])) == (422, ["secret", "types"])
    assert hooks.post("/v1/webhooks", **body).status_code == 200


def test_types__asked_for__no_other_event_comes(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url, types=["request.completed", "request.queued"])
    hooks.lives(1)
    hooks.work()
    assert [one.event["type"] for one in receiver.got] == ["request.queued", "request.completed"]
    hooks.do(f"/v1/webhooks/{hook['id']}/change", types=["request.confirming"])
    hooks.lives(1)
    hooks.work()
    assert [one.event["type"] for one in receiver.got[2:]] == ["request.confirming"]
    assert hooks.post(f"/v1/webhooks/{hook['id']}/change").status_code == 422
    assert hooks.post("/v1/webhooks", message_id="t", url=receiver.url, types=["request.paid"]).status_code == 422


def test_replay__after_a_sequence_or_since_a_time__the_same_events_again(hooks: Hooks, receiver: Receiver) -> None:
    (before,) = hooks.lives(1)
    hook = hooks.create(receiver.url)
    (request,) = hooks.lives(1)
    hooks.work()
    first = receiver.sequences()
    path = f"/v1/webhooks/{hook['id']}/replay"
    hooks.do(path, after_sequence=first[1])
    hooks.work()
    assert receiver.sequences() == first + first[2:]
    assert len({one.headers["X-Staking-Event-Id"] for one in receiver.got}) == EVENTS
    hooks.do(path, after_sequence=first[0] - 1 - EVENTS)  # also what was told before there was this webhook
    hooks.work()
    assert Counter(receiver.sequences()) == Counter([*first, *first[2:], *first, *range(first[0] - EVENTS, first[0])])
    assert receiver.by_request().keys() == {before, request}
    taken = len(receiver.got)
    hooks.do(path, since="2100-01-01T00:00:00Z")
    hooks.work()
    assert len(receiver.got) == taken
    hooks.do(path, since="2020-01-01T00:00:00Z")
    hooks.work()
    assert min(receiver.sequences()) == 1
    assert set(receiver.sequences()) == set(range(1, first[-1] + 1)), "the whole feed, without a gap"
    assert (
        hooks.post(path).status_code
        == hooks.post(path, since="2020-01-01T00:00:00Z", after_sequence=1).status_code
        == 422
    )


def test_replay__since_a_time__begins_at_its_first_event(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url)
    hooks.requests(3)
    hooks.work()
    last = max(receiver.sequences())
    receiver.got.clear()
    receiver.taken.clear()
    # The margin for events that were numbered late taken off, the time lies between the last event and the one before.
    at = hooks.ask("SELECT created_at + interval '60 s' FROM request_events WHERE sequence = :last", last=last)
    hooks.do(f"/v1/webhooks/{hook['id']}/replay", since=at.isoformat())
    hooks.work()
    assert receiver.sequences() == [last]


def test_test_event__asked_for__comes_whatever_types_there_are_and_is_signed(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url, types=["request.failed"])
    made = hooks.do(f"/v1/webhooks/{hook['id']}/test")
    assert (made["type"], made["sequence"], made["status"]) == ("webhook.test", None, "pending")
    hooks.deliver()
    (got,) = receiver.got
    assert (got.event["type"], got.event["sequence"], verified(got, SECRET)) == ("webhook.test", 0, 1)
    assert got.headers["X-Staking-Event-Id"] == made["event_id"]
    assert hooks.get(f"/v1/webhooks/{hook['id']}/deliveries/{made['id']}")["status"] == "delivered"


def test_disabled__while_events_come__all_sent_once_enabled_and_deleted_is_not_found(
    hooks: Hooks, receiver: Receiver
) -> None:
    hook = hooks.create(receiver.url)
    path = f"/v1/webhooks/{hook['id']}"
    assert hooks.do(f"{path}/disable")["status"] == "disabled"
    assert hooks.do(f"{path}/disable")["reason"]["code"] == "disabled_by_caller"
    hooks.lives(1)
    hooks.work()
    assert receiver.got == []
    assert hooks.post(f"{path}/test").get_json()["code"] == "webhook_not_enabled"
    assert hooks.post(f"{path}/replay", after_sequence=0).status_code == 409
    hooks.do(f"{path}/enable")
    hooks.work()
    assert len(receiver.taken) == EVENTS
    assert hooks.do(f"{path}/delete")["status"] == "deleted"
    hooks.requests(1)
    hooks.work()
    assert len(receiver.got) == EVENTS
    for left in ("", "/deliveries"):
        assert hooks.client.get(path + left, headers={"X-Internal-Key": "test-key"}).status_code == 404
    assert hooks.post(f"{path}/enable").status_code == 404
    assert hooks.ask("SELECT sealed_secret FROM webhooks WHERE id = :id", id=hook["id"]) == ""


def test_url__changed_while_it_fails__the_rest_goes_to_the_new_one(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500
    hook = hooks.create(receiver.url)
    hooks.lives(1)
    hooks.work()
    with receiving() as other:
        hooks.do(f"/v1/webhooks/{hook['id']}/change", url=other.url)
        hooks.time_passes()
        hooks.work()
        assert len(other.taken) == EVENTS
    assert hooks.post(f"/v1/webhooks/{hook['id']}/change", url="ftp://bff.example/").status_code == 422


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
            hooks.do(f"/v1/webhooks/{hook['id']}/test")
            return rest

    hooks.execute("UPDATE webhooks SET next_run_at = now() WHERE status = 'enabled'")
    assert runner.advance(Interrupted(hooks.house.context)) == 1
    assert receiver.got == []
    assert hooks.deliver() == 1
    assert counted(receiver).total() == 1


def test_trim__taken_long_ago__gone_with_its_attempts_and_made_anew_by_a_replay(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.answer = lambda got: 200 if got.event["type"] != "request.completed" else 500
    hook = hooks.create(receiver.url)
    hooks.lives(1)
    hooks.work()
    hooks.execute("UPDATE webhook_deliveries SET created_at = now() - interval '99 days'")
    hooks.execute("UPDATE webhook_deliveries SET delivered_at = now() - interval '31 days' WHERE type <> 'request.queued'"
                  " AND delivered_at IS NOT NULL")  # fmt: skip
    assert trim_deliveries(hooks.house.context.sessions, 30, piece=2) >= len(LIFE) - 1
    assert sorted(item["type"] for item in hooks.deliveries(hook)) == ["request.completed", "request.queued"]
    hooks.do(f"/v1/webhooks/{hook['id']}/replay", after_sequence=min(receiver.sequences()) - 1)
    hooks.work()
    assert len(receiver.taken) == 2 * (EVENTS - 1)
