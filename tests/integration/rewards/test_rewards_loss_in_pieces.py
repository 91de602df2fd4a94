"""A great loss is settled in pieces: nobody escapes it meanwhile, the index stands still, and nothing is left over."""

import pytest
from sqlalchemy.exc import DBAPIError

from tests.support.rewards import POOL, House, accrual, deltas, release, settle_in_pieces

GWEI = 10**9
USERS = ("ann", "ben", "cat", "dan")
LOSS = 400 * GWEI


@pytest.fixture
def settling(house: House) -> House:
    """Four stakes of 1000 gwei each and a loss of 400 gwei; it has reached ann alone."""
    settle_in_pieces(house.client.application, 1)
    for user in USERS:
        house.stake(f"s:{user}", user, 1000 * GWEI)
    assert house.refusal("/v1/accruals", accrual("loss", -LOSS)) == (409, "in_progress")
    assert house.get(f"/v1/pools/{POOL}")["settling"] is True
    # One position with the accrual, one by the call that then asked its caller to come again.
    assert [event["user_id"] for event in house.events(kind="settle")] == ["ann", "ben"]
    return house


def settle(house: House) -> bool:
    answer = house.post("/v1/settlements", {"pool_id": POOL})
    assert answer.status_code == 200
    return bool(answer.get_json()["settling"])


def finish(house: House) -> None:
    while settle(house):
        pass


def test_loss__asked_again_until_done__one_accrual_and_one_settlement_each(settling: House) -> None:
    while (answer := settling.post("/v1/accruals", accrual("loss", -LOSS))).status_code == 409:
        assert answer.get_json()["code"] == "in_progress"
    assert (answer.status_code, answer.get_json()["distributed_wei"]) == (200, str(-LOSS))
    log = [(event["kind"], event["message_id"], event["user_id"]) for event in settling.events()][4:]
    names = [f"loss:settle:{number}" for number in range(1, 5)]
    assert log == [
        ("accrual", "loss", None),
        *(("settle", name, user) for name, user in zip(names, USERS, strict=True)),
    ]
    assert [settling.position(user)["staked_wei"] for user in USERS] == [900 * GWEI] * 4
    assert settling.get(f"/v1/pools/{POOL}")["settling"] is False
    assert settling.differences() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/accruals", accrual("gain", 5)),
        ("/v1/accruals", accrual("more", -5)),
        ("/v1/parked/release", release("r", 5)),
    ],
)
def test_index__while_a_loss_is_being_settled__stands_still(house: House, path: str, body: dict[str, str]) -> None:
    house.accrue("parked", 10)
    settle_in_pieces(house.client.application, 1)
    for user in USERS:
        house.stake(f"s:{user}", user, 1000 * GWEI)
    house.refusal("/v1/accruals", accrual("loss", -LOSS))
    assert house.refusal(path, body) == (409, "in_progress")
    while (answer := house.post(path, body)).status_code == 409:
        pass
    assert answer.status_code == 201
    kinds = [event["kind"] for event in house.events()]
    first = kinds.index("accrual", kinds.index("accrual") + 1)
    assert kinds[first : first + 5] == ["accrual", *["settle"] * 4]
    assert len(kinds) == first + 6
    assert house.differences() == []


def test_unstake__of_a_position_the_loss_has_not_reached__bears_it_first(settling: House) -> None:
    assert settling.refusal("/v1/stake-deltas", deltas(("u:1", "dan", -1000 * GWEI, 0))) == (409, "insufficient_stake")
    assert settling.position("dan")["staked_wei"] == 1000 * GWEI  # the refusal changed nothing
    settling.stake("u:2", "dan", -900 * GWEI, 900 * GWEI)
    held = settling.position("dan")
    assert (held["staked_wei"], held["exiting_wei"], held["pending_wei"]) == (0, 900 * GWEI, 0)
    log = [(event["kind"], event["user_id"]) for event in settling.events()][-2:]
    assert log == [("settle", "dan"), ("stake_delta", "dan")]
    assert settling.differences() == []
    finish(settling)
    assert settling.position("dan")["exiting_wei"] == 900 * GWEI
    assert [event["user_id"] for event in settling.events(kind="settle")] == ["ann", "ben", "dan", "cat"]
    assert settling.differences() == []


def test_claim_and_stake__of_positions_the_loss_has_not_reached__bear_it_first(settling: House) -> None:
    assert settling.claim("c:1", "cat") == 0
    settling.stake("s:more", "dan", 100 * GWEI)
    settling.stake("s:new", "aaa", 7)  # behind the place where the pieces are: it was not there when the loss came
    settling.stake("s:last", "zoe", 7)
    finish(settling)
    staked = {user: settling.position(user)["staked_wei"] for user in (*USERS, "aaa", "zoe")}
    assert staked == dict.fromkeys(USERS, 900 * GWEI) | {"dan": 1000 * GWEI, "aaa": 7, "zoe": 7}
    assert settling.differences() == []


def test_index__moved_past_the_service_while_a_loss_is_being_settled__refused_by_the_database(settling: House) -> None:
    with pytest.raises(DBAPIError, match="stands still until its loss is settled"):
        settling.sql("UPDATE reward_pools SET acc_reward_per_share = acc_reward_per_share + 1")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("UPDATE reward_pools SET settling_prefix = NULL", "settled cat"),
        ("UPDATE reward_pools SET settling_after = 'cat'", "settled cat"),
        ("UPDATE reward_pools SET lowest_standing = lowest_standing + 10 ^ 36", "lowest_standing"),
    ],
)
def test_audit__of_a_loss_whose_settlement_was_forged__names_it(settling: House, change: str, field: str) -> None:
    if field == "lowest_standing":
        finish(settling)
    assert settling.differences() == []
    settling.sql(change)
    assert field in {difference["field"] for difference in settling.differences()}


def test_audit__pool_that_says_it_settles_what_never_was__is_a_difference(house: House) -> None:
    house.stake("s:1", "ann", 5)
    house.sql("UPDATE reward_pools SET settling_prefix = 'forged:settle:'")
    assert [(each["subject"], each["field"]) for each in house.differences()] == [(f"{POOL} pool", "settling")]


def test_floor__of_standings__is_not_believed_where_an_event_did_not_note_it(house: House) -> None:
    """A release before this one writes positions and knows no floor: a loss then scans, and parks what they cannot bear."""
    house.stake("s:1", "ann", 100)
    house.accrue("a:1", -1)
    house.stake("s:2", "ben", 1)
    house.sql("UPDATE reward_pools SET lowest_standing = 10 ^ 37, standing_event_id = standing_event_id - 1")
    found = house.accrue("a:2", -500)
    assert (int(found["distributed_wei"]), int(found["parked_wei"])) == (-99, -401)
    assert house.differences() == []
