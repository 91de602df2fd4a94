"""What callers ask of webhooks: made, changed, rotated, replayed, stopped; and what is shown of them, and what never is."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apps.common.auth import HEADER
from apps.pool.trim import trim_deliveries
from apps.pool.webhooks.service import MAX_WEBHOOKS
from tests.support.protocols import KEY
from tests.support.receiver import Receiver, receiving, verified
from tests.support.webhooks import EVENTS, LIFE, SECRET, Hooks


def test_rotation__under_way__signed_by_both_until_its_end(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url)
    hooks.act(hook, "rotate-secret")  # its answer was lost
    shown = hooks.act(hook, "rotate-secret", overlap_sec=3600)
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
    given = hooks.act(hook, "rotate-secret", secret="x" * 24, overlap_sec=0)
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


def test_create__fifty_twins_at_once__one_webhook_and_its_secret_in_one_answer(
    hooks: Hooks, receiver: Receiver
) -> None:
    body = {"message_id": "twins", "url": receiver.url}

    def create(_: int) -> Any:
        return hooks.client.application.test_client().post("/v1/webhooks", json=body, headers={HEADER: KEY})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(create, range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 49}
    assert len({answer.get_json()["id"] for answer in answers}) == 1
    assert sum(answer.get_json()["secret"] is not None for answer in answers) == 1


def test_call__repeated_under_its_message_id__has_its_effect_once_and_shows_no_secret_again(
    hooks: Hooks, receiver: Receiver
) -> None:
    hook = hooks.create(receiver.url)
    path = f"/v1/webhooks/{hook['id']}"
    for what, body in (("test", {}), ("rotate-secret", {"overlap_sec": 60}), ("replay", {"after_sequence": 0})):
        first, again = (hooks.post(f"{path}/{what}", message_id=what, **body) for _ in range(2))
        assert (first.status_code, again.status_code, again.headers["Idempotent-Replay"]) == (201, 200, "true")
        assert first.get_json()["id"] == again.get_json()["id"]
        if what == "rotate-secret":
            assert (first.get_json()["secret"] is not None, again.get_json()["secret"]) == (True, None)
    other = hooks.post(f"{path}/replay", message_id="replay", after_sequence=1)
    assert (other.status_code, list(other.get_json()["errors"])) == (422, ["after_sequence"])
    assert hooks.post(f"{path}/test", message_id="replay").get_json()["code"] == "message_id_reused"
    hooks.deliver()
    assert [one.event["type"] for one in receiver.got] == ["webhook.test"]


def test_create__more_than_there_may_be__refused_until_one_is_deleted(hooks: Hooks, receiver: Receiver) -> None:
    made = [hooks.create(receiver.url) for _ in range(MAX_WEBHOOKS)]
    refused = hooks.post("/v1/webhooks", message_id="one-more", url=receiver.url)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "too_many_webhooks")
    hooks.do(f"/v1/webhooks/{made[0]['id']}/delete")
    assert hooks.post("/v1/webhooks", message_id="one-more", url=receiver.url).status_code == 201


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
    hooks.act(hook, "replay", after_sequence=first[1])
    hooks.work()
    assert receiver.sequences() == first + first[2:]
    assert len({one.headers["X-Staking-Event-Id"] for one in receiver.got}) == EVENTS
    hooks.act(hook, "replay", after_sequence=first[0] - 1 - EVENTS)  # also what was told before there was this webhook
    hooks.work()
    assert Counter(receiver.sequences()) == Counter([*first, *first[2:], *first, *range(first[0] - EVENTS, first[0])])
    assert receiver.by_request().keys() == {before, request}
    taken = len(receiver.got)
    hooks.act(hook, "replay", since="2100-01-01T00:00:00Z")
    hooks.work()
    assert len(receiver.got) == taken
    hooks.act(hook, "replay", since="2020-01-01T00:00:00Z")
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
    hooks.act(hook, "replay", since=at.isoformat())
    hooks.work()
    assert receiver.sequences() == [last]


def test_test_event__asked_for__comes_whatever_types_there_are_and_is_signed(hooks: Hooks, receiver: Receiver) -> None:
    hook = hooks.create(receiver.url, types=["request.failed"])
    made = hooks.act(hook, "test")
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
    assert hooks.post(f"{path}/test", message_id="off").get_json()["code"] == "webhook_not_enabled"
    assert hooks.post(f"{path}/replay", message_id="off", after_sequence=0).status_code == 409
    hooks.do(f"{path}/enable")
    hooks.work()
    assert len(receiver.taken) == EVENTS
    assert hooks.do(f"{path}/delete")["status"] == "deleted"
    hooks.requests(1)
    hooks.work()
    assert len(receiver.got) == EVENTS
    for left in ("", "/deliveries"):
        assert hooks.client.get(path + left, headers={HEADER: KEY}).status_code == 404
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
    hooks.act(hook, "replay", after_sequence=min(receiver.sequences()) - 1)
    hooks.work()
    assert len(receiver.taken) == 2 * (EVENTS - 1)
