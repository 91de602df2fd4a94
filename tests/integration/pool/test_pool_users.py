"""Users: holds that stop what comes and keep what waits, least amounts, preferences, claims made by themselves."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.wei import ETHER, GWEI
from apps.pool.flows.batching import open_batches
from apps.pool.users.auto_claims import claim_due
from tests.support.pool import FullHouse, full_house, lido_state
from tests.support.protocols import KEY, POOL
from tests.support.raw import raw

SAID = {"by": "olga", "why": "a court order"}


@pytest.fixture(scope="module")
def full(make_database: Callable[[str], str]) -> Iterator[FullHouse]:
    with full_house(make_database, min_stake_wei=GWEI, min_unstake_wei=2 * GWEI) as found:
        yield found


def hold(full: FullHouse, user_id: str, *actions: str, message_id: str | None = None) -> str:
    body = {"message_id": message_id or f"hold:{user_id}", **SAID, **({"actions": list(actions)} if actions else {})}
    answer = full.post(f"/v1/users/{user_id}/holds", body)
    assert answer.status_code == 201, answer.get_json()
    return str(answer.get_json()["id"])


def stake(full: FullHouse, user_id: str, amount_wei: int = ETHER, name: str = "stake") -> tuple[int, str]:
    body = {"message_id": f"{name}:{user_id}", "user_id": user_id, "amount_wei": str(amount_wei)}
    # A client of its own: callers side by side share none.
    answer = full.client.application.test_client().post("/v1/stakes", json=body, headers={HEADER: KEY})
    found = answer.get_json()
    return answer.status_code, found.get("status") if answer.status_code < 400 else found["code"]


def requests_of(full: FullHouse, user_id: str) -> list[tuple[str, str, str | None]]:
    """(kind, status, code of the reason), newest first."""
    items = full.get("/v1/requests", user_id=user_id)["items"]
    return [(item["kind"], item["status"], item["reason"] and item["reason"]["code"]) for item in items]


def test_stake__user_on_hold__refused_by_name_and_the_id_stays_free(full: FullHouse) -> None:
    full.deposit("ann", ETHER)
    hold_id = hold(full, "ann", "stake")
    assert stake(full, "ann") == (409, "user_on_hold")
    assert (requests_of(full, "ann"), full.balance("ann")) == ([], (ETHER, 0, 0, 0))
    assert full.post(f"/v1/holds/{hold_id}/release", SAID).status_code == 200
    assert stake(full, "ann") == (201, "queued")


def test_stake__asked_for_before_the_hold__its_replay_is_answered(full: FullHouse) -> None:
    full.deposit("ben", ETHER)
    assert stake(full, "ben") == (201, "queued")
    hold(full, "ben")
    assert stake(full, "ben") == (200, "queued")


def test_hold__on_one_action_or_another_user__keeps_nobody_from_the_rest(full: FullHouse) -> None:
    full.deposit("cid", ETHER)
    hold(full, "cid", "unstake", "reward_claim")
    hold(full, "cid-2")
    assert stake(full, "cid") == (201, "queued")


def test_hold__of_all_while_fifty_stake__none_is_made_after_its_answer(full: FullHouse) -> None:
    full.deposit("eve", 200 * ETHER)
    with ThreadPoolExecutor(8) as callers:
        first = [callers.submit(stake, full, "eve", ETHER, f"before-{number}") for number in range(25)]
        placed = callers.submit(hold, full, "eve")
        placed.result()
        after = [callers.submit(stake, full, "eve", ETHER, f"after-{number}") for number in range(25)]
        made = sum(call.result()[0] == 201 for call in first)
        assert {call.result() for call in after} == {(409, "user_on_hold")}
    assert len(requests_of(full, "eve")) == made


def test_queued__then_on_hold__waits_with_its_reason_and_goes_on_once_released(full: FullHouse) -> None:
    with transaction(full.pool.context.sessions) as session:
        session.execute(text("UPDATE requests SET intent = 'cancel' WHERE status = 'queued'"))  # out of this test's way
    for user_id in ("fay", "gus"):
        full.deposit(user_id, 20 * ETHER)
        assert stake(full, user_id, 20 * ETHER) == (201, "queued")
    hold_id = hold(full, "fay", "stake")
    assert open_batches(full.pool.context, POOL, lido_state()) == 1
    assert requests_of(full, "fay") == [("stake", "queued", "user_on_hold")]
    assert requests_of(full, "gus") == [("stake", "batched", None)]
    full.post(f"/v1/holds/{hold_id}/release", SAID)
    assert open_batches(full.pool.context, POOL, lido_state()) == 1
    assert requests_of(full, "fay") == [("stake", "batched", None)]


def test_hold__again_under_its_name__is_a_replay_and_differing_is_refused(full: FullHouse) -> None:
    hold(full, "hal", message_id="once")
    again = full.post("/v1/users/hal/holds", {"message_id": "once", **SAID})
    assert (again.status_code, again.headers["Idempotent-Replay"]) == (200, "true")
    other = full.post("/v1/users/hal/holds", {"message_id": "once", **SAID, "actions": ["stake"]})
    assert (other.status_code, other.get_json()["code"]) == (422, "message_id_reused")
    assert "actions" in other.get_json()["errors"]


def test_release__by_another_or_of_nothing__refused(full: FullHouse) -> None:
    hold_id = hold(full, "ida")
    for _ in range(2):
        assert full.post(f"/v1/holds/{hold_id}/release", SAID).status_code == 200
    other = full.post(f"/v1/holds/{hold_id}/release", {**SAID, "by": "otto"})
    assert (other.status_code, other.get_json()["code"]) == (409, "hold_released")
    assert full.post("/v1/holds/no-such/release", SAID).status_code == 404
    (shown,) = full.get("/v1/holds", user_id="ida")["items"]
    assert (shown["actions"], shown["released_by"]) == (["all"], "olga")
    assert full.get("/v1/holds", user_id="ida", standing="true")["items"] == []


@pytest.mark.parametrize("statement", ["UPDATE user_holds SET actions = '{}'", "DELETE FROM user_hold_releases"])
def test_holds__changed_by_the_owner__refused(full: FullHouse, statement: str) -> None:
    with pytest.raises(Exception, match="kept for ever"), transaction(full.pool.context.sessions) as session:
        session.execute(text(statement))


def test_amount__below_the_least__422_names_it(full: FullHouse) -> None:
    for path, least in (("/v1/stakes", GWEI), ("/v1/unstakes", 2 * GWEI)):
        body = {"message_id": f"small:{path[4:]}", "user_id": "kim", "amount_wei": str(least - 1)}
        answer = full.post(path, body)
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")
        assert str(least) in answer.get_json()["errors"]["amount_wei"][0]
    assert requests_of(full, "kim") == []


def test_users__by_prefix__in_order_with_what_they_have_and_are_kept_from(full: FullHouse) -> None:
    for number in range(5):
        full.deposit(f"search-{number}", ETHER)
    full.deposit("searcher", ETHER)
    hold(full, "search-3", "stake", "unstake")
    found = []
    query: dict[str, str] = {"prefix": "search-", "limit": "2"}
    while True:
        page = full.get("/v1/users", **query)
        found += page["items"]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert [item["user_id"] for item in found] == [f"search-{number}" for number in range(5)]
    assert [item["on_hold"] for item in found] == [[], [], [], ["stake", "unstake"], []]
    assert {item["available_wei"] for item in found} == {str(ETHER)}


def make_due(full: FullHouse) -> None:
    with transaction(full.pool.context.sessions) as session:
        session.execute(text("UPDATE user_preferences SET next_auto_claim_at = now() WHERE auto_claim_rewards"))


def earn(full: FullHouse, user_id: str, name: str) -> None:
    """One user holds all weight, and is owed 1 ETH."""
    delta = {
        "message_id": f"{name}:in",
        "user_id": user_id,
        "staked_delta_wei": str(32 * ETHER),
        "exiting_delta_wei": "0",
    }
    raw(full.rewards).post("/v1/stake-deltas", {"pool_id": POOL, "deltas": [delta]})
    accrual = {"message_id": name, "pool_id": POOL, "new_rewards_wei": str(ETHER), "source": "test"}
    raw(full.rewards).post("/v1/accruals", accrual)


def test_auto_claim__preferred_and_due__claimed_once_whoever_looks_and_again_only_when_more_is_owed(
    full: FullHouse,
) -> None:
    earn(full, "lea", "first")
    assert full.get("/v1/users/lea/preferences")["auto_claim_rewards"] is False
    prefer = {"auto_claim_rewards": True}
    answer = full.client.put("/v1/users/lea/preferences", json=prefer, headers={HEADER: KEY})
    assert answer.status_code == 200, answer.get_json()
    assert claim_due(full.pool.context) == 0  # not yet
    make_due(full)
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: claim_due(full.pool.context), range(4)))
    assert [kind for kind, _, _ in requests_of(full, "lea")] == ["reward_claim"]
    make_due(full)
    assert claim_due(full.pool.context) == 0
    assert len(requests_of(full, "lea")) == 1


def test_auto_claim__user_on_hold__left_until_the_next_time(full: FullHouse) -> None:
    full.client.put("/v1/users/max/preferences", json={"auto_claim_rewards": True}, headers={HEADER: KEY})
    earn(full, "max", "second")
    hold(full, "max", "reward_claim")
    make_due(full)
    claim_due(full.pool.context)
    assert requests_of(full, "max") == []
    assert full.get("/v1/users/max/preferences")["next_auto_claim_at"] is not None


def test_auto_claim__of_one_user_is_refused__the_next_ones_are_claimed(full: FullHouse) -> None:
    for user_id in ("oda", "pia"):
        full.client.put(f"/v1/users/{user_id}/preferences", json={"auto_claim_rewards": True}, headers={HEADER: KEY})
        earn(full, user_id, f"of-{user_id}")
    with transaction(full.pool.context.sessions) as session:
        (first,) = session.scalars(text("SELECT id FROM user_preferences WHERE user_id = 'oda'"))
        session.execute(
            text(
                "UPDATE user_preferences SET next_auto_claim_at"
                " = now() - CASE user_id WHEN 'oda' THEN interval '1 hour' ELSE interval '1 second' END"
                " WHERE auto_claim_rewards"
            )
        )
    full.deposit("rob", ETHER)
    body = {"message_id": f"auto-claim:{first}:1", "user_id": "rob", "amount_wei": str(ETHER)}  # oda's name is taken
    assert full.post("/v1/stakes", body).status_code == 201
    claim_due(full.pool.context)
    assert requests_of(full, "oda") == []
    assert [kind for kind, _, _ in requests_of(full, "pia")] == ["reward_claim"]


def test_preferences__taken_back__nothing_is_claimed_any_more(full: FullHouse) -> None:
    for wanted in (True, False):
        body = {"auto_claim_rewards": wanted}
        full.client.put("/v1/users/ned/preferences", json=body, headers={HEADER: KEY})
    assert full.get("/v1/users/ned/preferences")["next_auto_claim_at"] is None
    make_due(full)
    assert full.get("/v1/users/ned/preferences")["next_auto_claim_at"] is None
