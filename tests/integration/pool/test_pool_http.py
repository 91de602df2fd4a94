"""The pool's endpoints over real books: idempotency, refusals, cancel, retry, feed, shapes."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, text, update
from sqlalchemy.exc import DBAPIError

from apps.clients.rewards import stake_delta
from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.flow.lease import acquire
from apps.pool.flows.requests import run_request
from apps.pool.models import Request
from tests.support.pool import FullHouse, pool_house
from tests.support.protocols import KEY, POOL
from tests.support.raw import raw

REQUEST_FIELDS = (
    "id message_id kind pool_id user_id amount_wei settled_wei status reason batch_id withdrawals transactions next "
    "timeline created_at updated_at payout deposit_tx_hash"
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def stake(message_id: str = "s:1", user_id: str = "ann", amount_wei: object = str(ETHER)) -> dict[str, object]:
    return {"message_id": message_id, "user_id": user_id, "amount_wei": amount_wei}


def give_stake(full: FullHouse, user_id: str, wei: int) -> None:
    """What a confirmed stake leaves: index first, then the books."""
    full.deposit(user_id, wei)
    raw(full.ledger).post_movement(f"{user_id}:r", "stake_reserve", POOL, user_id, wei)
    full.rewards.stake_deltas(POOL, [stake_delta(f"{user_id}:c", user_id, wei)])
    raw(full.ledger).post_movement(f"{user_id}:c", "stake_confirm", POOL, user_id, wei)


def test_stake__enough_available__queued_with_the_contracts_shape(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    answer = full.post("/v1/stakes", stake())
    body = answer.get_json()
    assert (answer.status_code, answer.headers.get("Idempotent-Replay")) == (201, None)
    assert set(body) == set(REQUEST_FIELDS.split())
    assert (body["status"], body["amount_wei"], body["settled_wei"]) == ("queued", str(ETHER), None)
    assert [entry["status"] for entry in body["timeline"]] == ["reserving", "queued"]
    assert body["next"]["step"] == "batch"
    assert all(TIME.fullmatch(moment) for moment in (body["created_at"], body["next"]["due_at"]))
    assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)
    assert ("tasks.batching.run", None) in full.pool.hints
    assert full.get(f"/v1/requests/{body['id']}") == body


def test_stake__repeated__200_and_one_reservation(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    first = full.post("/v1/stakes", stake())
    again = full.post("/v1/stakes", stake())
    assert (again.status_code, again.headers["Idempotent-Replay"]) == (200, "true")
    assert again.get_json() == first.get_json()
    assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)


def test_stake__same_id_other_body__422_naming_what_differs(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    full.post("/v1/stakes", stake())
    for other, field in (
        (stake(amount_wei="5"), "amount_wei"),
        (stake(user_id="bob"), "user_id"),
    ):
        answer = full.post("/v1/stakes", other)
        assert (answer.status_code, answer.get_json()["code"]) == (422, "message_id_reused")
        assert list(answer.get_json()["errors"]) == [field]
    answer = full.post("/v1/unstakes", stake())
    assert (answer.get_json()["code"], list(answer.get_json()["errors"])) == ("message_id_reused", ["kind"])
    assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)


def test_stake__twenty_twins_at_once__one_request_one_movement(full: FullHouse) -> None:
    full.deposit("ann", 30 * ETHER)
    barrier = threading.Barrier(20)

    def post(_: int) -> tuple[int, str]:
        client = full.pool.client()
        barrier.wait()
        answer = client.post("/v1/stakes", json=stake(), headers={HEADER: KEY})
        return answer.status_code, answer.get_json()["id"]

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(post, range(20)))
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert len({request_id for _, request_id in answers}) == 1
    assert full.balance("ann") == (29 * ETHER, ETHER, 0, 0)


def test_message_id__header_and_body__must_agree_and_one_must_be_there(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    nameless = {"user_id": "ann", "amount_wei": "7"}
    answer = full.post("/v1/stakes", nameless)
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["message_id"])
    answer = full.post("/v1/stakes", stake(), **{"Idempotency-Key": "other"})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["message_id"])
    answer = full.post("/v1/stakes", nameless, **{"Idempotency-Key": "by-header"})
    assert (answer.status_code, answer.get_json()["message_id"]) == (201, "by-header")
    answer = full.post("/v1/stakes", {**nameless, "message_id": "by-header"})
    assert (answer.status_code, answer.headers["Idempotent-Replay"]) == (200, "true")


def test_stake__more_than_available__409_sticky_and_the_row_rejected(full: FullHouse) -> None:
    full.deposit("ann", ETHER)
    answer = full.post("/v1/stakes", stake(amount_wei=str(2 * ETHER)))
    body = answer.get_json()
    assert (answer.status_code, body["code"]) == (409, "insufficient_balance")
    assert full.get(f"/v1/requests/{body['pool_request_id']}")["status"] == "rejected"
    raw(full.ledger).post_movement("more", "deposit", POOL, "ann", 10 * ETHER)
    again = full.post("/v1/stakes", stake(amount_wei=str(2 * ETHER)))
    assert (again.status_code, again.get_json()["code"]) == (409, "insufficient_balance")
    assert full.balance("ann") == (11 * ETHER, 0, 0, 0)


def test_stake__ledger_unreachable__201_reserving_and_nothing_lost(full: FullHouse) -> None:
    away = pool_house(full.pool.context.settings.database_url, rewards_url=full.pool.context.settings.rewards_url)
    answer = away.client().post("/v1/stakes", json=stake(), headers={HEADER: KEY})
    assert (answer.status_code, answer.get_json()["status"]) == (201, "reserving")
    assert answer.get_json()["next"]["step"] == "reserve"
    assert full.balance("ann") == (0, 0, 0, 0)


def test_cancel__queued_stake__everything_back_and_final(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    made = full.post("/v1/stakes", stake()).get_json()
    for _ in range(2):
        answer = full.post(f"/v1/requests/{made['id']}/cancel", {})
        assert (answer.status_code, answer.get_json()["status"]) == (200, "cancelled")
    assert full.balance("ann") == (3 * ETHER, 0, 0, 0)
    assert full.post("/v1/stakes", stake()).get_json()["status"] == "cancelled"


def test_cancel__queued_unstake__index_and_books_both_back(full: FullHouse) -> None:
    give_stake(full, "ann", 5 * ETHER)
    made = full.post("/v1/unstakes", {"message_id": "u:1", "user_id": "ann", "amount_wei": "max"}).get_json()
    assert (made["status"], made["amount_wei"]) == ("queued", str(5 * ETHER))
    assert full.balance("ann") == (0, 0, 0, 5 * ETHER)
    position = raw(full.rewards).position(POOL, "ann")
    assert (position["staked_wei"], position["exiting_wei"]) == ("0", str(5 * ETHER))
    answer = full.post(f"/v1/requests/{made['id']}/cancel", {})
    assert answer.get_json()["status"] == "cancelled"
    position = raw(full.rewards).position(POOL, "ann")
    assert (position["staked_wei"], position["exiting_wei"]) == (str(5 * ETHER), "0")
    assert full.balance("ann") == (0, 0, 5 * ETHER, 0)


def test_cancel__rejected_request__409_not_cancellable(full: FullHouse) -> None:
    refused = full.post("/v1/stakes", stake()).get_json()
    answer = full.post(f"/v1/requests/{refused['pool_request_id']}/cancel", {})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "not_cancellable")


def test_retry__request_that_is_not_parked__409_not_retryable(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    made = full.post("/v1/stakes", stake()).get_json()
    answer = full.post(f"/v1/requests/{made['id']}/retry", {})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "not_retryable")


@pytest.mark.parametrize(
    ("amount", "status", "code"), [(5 * ETHER, 201, None), (5 * ETHER + 1, 409, "insufficient_balance")]
)
def test_unstake__up_to_what_the_position_is_worth__and_no_more(
    full: FullHouse, amount: int, status: int, code: str | None
) -> None:
    give_stake(full, "ann", 5 * ETHER)
    answer = full.post("/v1/unstakes", {"message_id": "u:1", "user_id": "ann", "amount_wei": str(amount)})
    assert (answer.status_code, answer.get_json().get("code")) == (status, code)


def test_unstake__pending_reward__settled_first_and_part_of_max(full: FullHouse) -> None:
    give_stake(full, "ann", 4 * ETHER)
    give_stake(full, "bob", 4 * ETHER)
    full.rewards.accrue("gain", POOL, 1000, "share_rate")
    raw(full.ledger).post_movement("gain:book", "reward_accrue", POOL, None, 1000)
    made = full.post("/v1/unstakes", {"message_id": "u:1", "user_id": "ann", "amount_wei": "max"}).get_json()
    assert made["amount_wei"] == str(4 * ETHER + 500)
    assert full.balance("ann") == (0, 0, 0, 4 * ETHER + 500)


def test_reward_claim__twice__the_second_moves_nothing(full: FullHouse) -> None:
    give_stake(full, "ann", 4 * ETHER)
    full.rewards.accrue("gain", POOL, 1000, "share_rate")
    raw(full.ledger).post_movement("gain:book", "reward_accrue", POOL, None, 1000)
    first = full.post("/v1/reward-claims", {"message_id": "c:1", "user_id": "ann"}).get_json()
    second = full.post("/v1/reward-claims", {"message_id": "c:2", "user_id": "ann"}).get_json()
    assert [(item["status"], item["settled_wei"]) for item in (first, second)] == [
        ("completed", "1000"),
        ("completed", "0"),
    ]
    assert full.balance("ann") == (0, 0, 4 * ETHER + 1000, 0)


def test_events__eight_writers__gap_free_in_commit_order(full: FullHouse) -> None:
    users = [f"u{number}" for number in range(24)]
    for user in users:
        full.deposit(user, ETHER)

    clients = [full.pool.client() for _ in range(8)]  # made one by one: Python's compiler is not safe in threads

    def write(number: int) -> None:
        for user in users[number::8]:
            clients[number].post("/v1/stakes", json=stake(f"s:{user}", user), headers={HEADER: KEY})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    seen, after = [], 0
    while True:
        answer = full.get("/v1/events", after=after, limit=7)
        if not answer["items"]:
            break
        seen += answer["items"]
        assert answer["next"] == answer["items"][-1]["sequence"]
        after = answer["next"]
    assert [item["sequence"] for item in seen] == list(range(1, 2 * len(users) + 1))
    for user in users:
        assert [item["type"] for item in seen if item["user_id"] == user] == ["request.reserving", "request.queued"]
    assert full.get("/v1/events", after=after)["next"] == after


def test_portfolio__unknown_user__zeros(full: FullHouse) -> None:
    found = full.get("/v1/users/nobody/portfolio")
    assert set(found) == {"pool_id", "user_id", "balance", "position", "requests"}
    assert (found["balance"]["available_wei"], found["position"]["staked_wei"], found["requests"]) == ("0", "0", [])


def test_requests__pages__every_row_once_newest_first(full: FullHouse) -> None:
    full.deposit("ann", 10 * ETHER)
    made = [full.post("/v1/stakes", stake(f"s:{number}")).get_json()["id"] for number in range(5)]
    seen: list[str] = []
    after = None
    while True:
        answer = full.get("/v1/requests", limit=2, user_id="ann", **({} if after is None else {"after": after}))
        seen += [item["id"] for item in answer["items"]]
        after = answer["next"]
        if after is None:
            break
    assert seen == made[::-1]


def test_request_events__edited_or_deleted__refused_by_the_database(full: FullHouse) -> None:
    full.deposit("ann", ETHER)
    full.post("/v1/stakes", stake())
    for what, statement in (
        ("UPDATE", "UPDATE request_events SET status = 'x'"),
        ("DELETE", "DELETE FROM request_events"),
    ):
        refusal = f"{what} of request_events is refused"
        with pytest.raises(DBAPIError, match=refusal), transaction(full.pool.context.sessions) as session:
            session.execute(text(statement))


def test_stake__ledger_back__the_flow_finishes_the_request(full: FullHouse) -> None:
    full.deposit("ann", 3 * ETHER)
    away = pool_house(full.pool.context.settings.database_url, rewards_url=full.pool.context.settings.rewards_url)
    made = away.client().post("/v1/stakes", json=stake(), headers={HEADER: KEY}).get_json()
    (row,) = acquire(full.pool.context.sessions, Request, 60, row_id=made["id"], early=True)
    run_request(full.pool.context, row)
    assert full.get(f"/v1/requests/{made['id']}")["status"] == "queued"
    assert full.balance("ann") == (2 * ETHER, ETHER, 0, 0)


def test_stake__ledger_refuses_the_pools_key__no_verdict_about_the_user(full: FullHouse) -> None:
    settings = full.pool.context.settings
    full.deposit("ann", 3 * ETHER)
    wrong = pool_house(settings.database_url, internal_keys=("wrong",), ledger_url=settings.ledger_url)
    made = wrong.client().post("/v1/stakes", json=stake(), headers={HEADER: KEY}).get_json()
    assert made["status"] == "reserving"
    (row,) = acquire(full.pool.context.sessions, Request, 60, row_id=made["id"], early=True)
    run_request(full.pool.context, row)
    assert full.get(f"/v1/requests/{made['id']}")["status"] == "queued"


def test_cancel__a_slashing_came_off_the_amount_meanwhile__gives_back_what_is_left(full: FullHouse) -> None:
    give_stake(full, "ann", 10 * ETHER)
    made = [
        full.post(
            "/v1/unstakes", {"message_id": f"u:{eth}", "user_id": "ann", "amount_wei": str(eth * ETHER)}
        ).get_json()
        for eth in (5, 3)
    ]
    newest = made[1]["id"]
    sessions = full.pool.context.sessions
    with transaction(sessions) as session:
        session.execute(update(Request).where(Request.id == newest).values(intent="cancel", next_run_at=func.now()))
    (row,) = acquire(sessions, Request, 60, row_id=newest)
    # The index takes 3 ETH: the 2 that are staked, and 1 of those on their way out, which the walk takes off the newest.
    full.rewards.accrue("loss", POOL, -3 * ETHER, "share_rate")
    for message_id, kind, wei in (("cut", "unstake_cancel", ETHER), ("lost", "reward_loss", 3 * ETHER)):
        raw(full.ledger).post_movement(message_id, kind, POOL, "ann", wei)
    with transaction(sessions) as session:
        session.execute(update(Request).where(Request.id == newest).values(amount_wei=2 * ETHER))
    run_request(full.pool.context, row)
    assert full.get(f"/v1/requests/{newest}")["status"] == "cancelled"
    position = raw(full.rewards).position(POOL, "ann")
    assert (position["staked_wei"], position["exiting_wei"]) == (str(2 * ETHER), str(5 * ETHER))
    assert full.balance("ann") == (0, 0, 2 * ETHER, 5 * ETHER)
