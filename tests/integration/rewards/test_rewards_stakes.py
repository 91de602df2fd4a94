"""Stake deltas, claims and reads over HTTP."""

from apps.common.auth import HEADER
from tests.support.rewards import POOL, House, claim, deltas

ETHER = 10**18
ZEROS = {
    "staked_wei": "0", "exiting_wei": "0", "pending_wei": "0", "claimed_wei": "0", "reward_debt": "0",
    "updated_at": None,
}  # fmt: skip


def test_stake_deltas__many__all_applied(house: House) -> None:
    found = house.done("/v1/stake-deltas", deltas(*[(f"s:{number}", f"u{number}", 10, 0) for number in range(50)]))
    assert found == {"applied": 50, "replayed": 0}
    assert house.pool()["weight_wei"] == 500
    assert house.differences() == []


def test_stake_deltas__ten_thousand__one_call_and_one_more_is_refused(house: House) -> None:
    items = [(f"s:{number}", f"u{number % 7}", 1, 1) for number in range(10_001)]
    assert house.refusal("/v1/stake-deltas", deltas(*items)) == (422, "invalid_input")
    assert house.done("/v1/stake-deltas", deltas(*items[:-1])) == {"applied": 10_000, "replayed": 0}
    assert house.pool()["weight_wei"] == 20_000
    assert house.refusal("/v1/stake-deltas", deltas()) == (422, "invalid_input")


def test_stake_deltas__several_of_one_user__applied_in_order(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", 10, 0), ("s:2", "ann", -10, 10), ("s:3", "ann", 0, -4)))
    assert (house.position("ann")["staked_wei"], house.position("ann")["exiting_wei"]) == (0, 6)
    refused = deltas(("s:4", "ann", 0, -7), ("s:5", "ann", 0, 7))
    assert house.refusal("/v1/stake-deltas", refused) == (409, "insufficient_stake")


def test_stake_deltas__one_takes_too_much__none_applied_and_no_id_used_up(house: House) -> None:
    house.stake("s:1", "ann", 10)
    batch = deltas(("s:2", "ben", 5, 0), ("s:3", "ann", -11, 0))
    assert house.refusal("/v1/stake-deltas", batch) == (409, "insufficient_stake")
    assert house.get("/v1/positions/ben") == {"pool_id": POOL, "user_id": "ben", **ZEROS}
    house.stake("s:4", "ann", 1)
    assert house.done("/v1/stake-deltas", batch) == {"applied": 2, "replayed": 0}
    assert (house.position("ann")["staked_wei"], house.position("ben")["staked_wei"]) == (0, 5)


def test_stake_deltas__with_pending__pending_stays(house: House) -> None:
    house.stake("s:1", "ann", 10)
    house.accrue("a:1", 7)
    house.stake("s:2", "ann", 90)
    house.stake("s:3", "ann", -100)
    assert (house.position("ann")["staked_wei"], house.position("ann")["pending_wei"]) == (0, 7)
    assert house.claim("c:1", "ann") == 7
    assert house.position("ann")["staked_wei"] == 7


def test_stake_deltas__loss_pending__never_more_than_the_position_is_worth(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", 100, 0), ("s:2", "ben", 100, 0)))
    house.accrue("a:1", -20)
    for number, (staked, exiting) in enumerate(((-100, 0), (-91, 0))):
        refused = deltas((f"s:3:{number}", "ann", staked, exiting))
        assert house.refusal("/v1/stake-deltas", refused) == (409, "insufficient_stake")
    house.stake("s:4", "ann", -100, 100)  # asking to leave is no leaving
    assert house.refusal("/v1/stake-deltas", deltas(("s:5", "ann", 0, -91))) == (409, "insufficient_stake")
    house.stake("s:6", "ann", 0, -90)
    assert house.claim("c:1", "ann") == -10
    assert house.position("ann") == dict.fromkeys(house.position("ann"), 0) | {"claimed_wei": -10}
    assert house.claim("c:2", "ben") == -10
    assert house.differences() == []


def test_claim__pending__moves_into_staked_in_one_step(house: House) -> None:
    house.stake("s:1", "ann", 10)
    house.accrue("a:1", 7)
    found = house.done("/v1/claims", claim("c:1", "ann"))
    assert found.pop("created_at").endswith("Z")
    assert found == {"message_id": "c:1", "pool_id": POOL, "user_id": "ann", "claimed_wei": "7"}
    position = house.position("ann")
    assert (position["staked_wei"], position["pending_wei"], position["claimed_wei"]) == (17, 0, 7)
    assert (house.pool()["weight_wei"], house.pool()["claimed_wei"]) == (17, 7)
    assert house.claim("c:2", "ann") == 0
    assert house.claim("c:3", "nobody") == 0
    assert house.differences() == []


def test_claim__negative_pending__is_taken_off(house: House) -> None:
    house.stake("s:1", "ann", 10)
    house.stake("s:2", "ann", -8, 8)
    house.accrue("a:1", -3)
    assert house.claim("c:1", "ann") == -3
    position = house.position("ann")
    assert (position["staked_wei"], position["exiting_wei"], position["claimed_wei"]) == (0, 7, -3)
    assert house.differences() == []


def test_position__formula_of_the_schema__gives_pending(house: House) -> None:
    house.stake("s:1", "ann", 3)
    house.accrue("a:1", 10)
    house.stake("s:2", "ann", 4, 2)
    house.accrue("a:2", -5)
    found, index = house.position("ann"), house.pool()["acc_reward_per_share"]
    weight = found["staked_wei"] + found["exiting_wei"]
    assert (weight * index - found["reward_debt"]) // 10**36 == found["pending_wei"]


def test_reads__nothing_ever_happened__zeros(house: House) -> None:
    assert house.get("/v1/positions/nobody") == {"pool_id": POOL, "user_id": "nobody", **ZEROS}
    assert house.get("/v1/pools/other")["weight_wei"] == "0"
    assert house.get("/v1/events") == {"items": [], "next": 0}
    assert house.get("/v1/positions") == {"items": [], "next": None}
    assert house.get("/v1/audits") == {"items": [], "next": None}


def test_events__followed_by_next__each_once_in_order(house: House) -> None:
    for number in range(7):
        house.stake(f"s:{number}", "ann", 1)
    seen, after = [], 0
    while True:
        found = house.get("/v1/events", after=after, limit=3)
        if not found["items"]:
            break
        seen += found["items"]
        after = found["next"]
        assert after == found["items"][-1]["id"]
    assert [event["message_id"] for event in seen] == [f"s:{number}" for number in range(7)]
    assert house.get("/v1/events", after=after) == {"items": [], "next": after}


def test_events__filtered__only_those(house: House) -> None:
    house.stake("s:1", "ann", 1)
    house.stake("s:2", "ben", 1)
    house.accrue("a:1", 4)
    house.claim("c:1", "ben")
    assert [event["message_id"] for event in house.events(user_id="ben")] == ["s:2", "c:1"]
    assert [event["message_id"] for event in house.events(kind="accrual")] == ["a:1"]
    assert list(house.events(kind="claim")[0]) == [
        "id", "pool_id", "kind", "message_id", "user_id", "staked_delta_wei", "exiting_delta_wei", "claimed_wei",
        "new_rewards_wei", "fee_wei", "distributed_wei", "parked_wei", "weight_wei", "source", "acc_reward_per_share",
        "created_at",
    ]  # fmt: skip


def test_events__settled__only_what_moved_wei_and_the_cursor_passes_all_others(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(*[(f"s:{number}", f"user-{number}", 10, 0) for number in range(3)]))
    house.accrue("a:1", 30)
    for number in range(3):
        house.claim(f"c:{number}", f"user-{number}")
    house.claim("c:none", "user-0")
    last = house.events()[-1]["id"]
    first = house.get("/v1/events", settled="true", limit=2)
    assert [event["message_id"] for event in first["items"]] == ["c:0", "c:1"]
    assert first["next"] == first["items"][-1]["id"]
    rest = house.get("/v1/events", settled="true", limit=2, after=first["next"])
    assert ([event["message_id"] for event in rest["items"]], rest["next"]) == (["c:2"], last)
    assert house.get("/v1/events", settled="true", after=last) == {"items": [], "next": last}
    house.stake("s:9", "user-0", 1)
    after = house.get("/v1/events", settled="true", after=last)
    assert (after["items"], after["next"] > last) == ([], True)


def test_positions__paged__all_in_user_order(house: House) -> None:
    users = ["Zoe", "ann", "b|1", "b+2", "x"]
    house.done("/v1/stake-deltas", deltas(*[(f"s:{number}", user, 1, 0) for number, user in enumerate(users)]))
    seen, after = [], None
    while True:
        found = house.get("/v1/positions", limit=2, **({"after": after} if after else {}))
        seen += [item["user_id"] for item in found["items"]]
        after = found["next"]
        if after is None:
            break
    assert seen == sorted(users)


def test_reads__malformed__422(house: House) -> None:
    for path, query in (
        ("/v1/positions/@fees", {}),
        ("/v1/pools/a b", {}),
        ("/v1/events", {"after": "x"}),
        ("/v1/events", {"limit": 201}),
        ("/v1/events", {"kind": "theft"}),
        ("/v1/audits", {"after": "x"}),
    ):
        answer = house.ask(path, **query)
        assert (answer.status_code, answer.get_json().get("code")) == (422, "invalid_input"), path


def test_every_address__without_the_key__401_but_for_the_open_pages(house: House) -> None:
    client = house.client
    assert client.get("/v1/pools/eth_native").status_code == 401
    assert client.post("/v1/accruals", json={}, headers={HEADER: "wrong"}).status_code == 401
    for path in ("/status/rewards", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 200
