"""Claims of many users in one call: all or nothing, each once, under whichever endpoint it was first made."""

import pytest

from tests.support.rewards import POOL, House, Json, claim


@pytest.fixture
def staked(house: House) -> House:
    """Ann and ben hold 100 each and 10 are pending for each."""
    house.stake("stake:ann", "ann", 100)
    house.stake("stake:ben", "ben", 100)
    house.accrue("gain", 20)
    return house


def batch(*claims: tuple[str, str]) -> Json:
    return {"pool_id": POOL, "claims": [{"message_id": name, "user_id": user} for name, user in claims]}


def test_claims__of_many__each_as_if_claimed_alone(staked: House) -> None:
    body = batch(("c:ann", "ann"), ("c:ben", "ben"), ("c:nobody", "nobody"))
    assert staked.done("/v1/claims/batch", body) == {"claimed": 3, "replayed": 0}
    assert [staked.position(user)["staked_wei"] for user in ("ann", "ben", "nobody")] == [110, 110, 0]
    assert [event["claimed_wei"] for event in staked.events(kind="claim")] == ["10", "10", "0"]
    again = staked.post("/v1/claims/batch", body)
    assert (again.status_code, again.get_json()) == (200, {"claimed": 0, "replayed": 3})
    assert len(staked.events(kind="claim")) == 3
    assert staked.differences() == []


def test_claims__some_made_one_by_one_before__replayed_and_the_rest_applies(staked: House) -> None:
    """A step of an earlier release, cut off in the middle, is finished by the next one."""
    assert staked.claim("c:ann", "ann") == 10
    body = batch(("c:ann", "ann"), ("c:ben", "ben"))
    assert staked.done("/v1/claims/batch", body) == {"claimed": 1, "replayed": 1}
    alone = staked.post("/v1/claims", claim("c:ben", "ben"))
    assert (alone.status_code, alone.get_json()["claimed_wei"]) == (200, "10")
    assert staked.differences() == []


def test_claims__one_of_another_body__nothing_applied_and_no_id_used_up(staked: House) -> None:
    staked.claim("c:ann", "ann")
    refused = staked.post("/v1/claims/batch", batch(("c:ben", "ben"), ("c:ann", "ben")))
    assert (refused.status_code, refused.get_json()["code"]) == (422, "message_id_reused")
    assert staked.position("ben")["staked_wei"] == 100
    assert staked.done("/v1/claims/batch", batch(("c:ben", "ben"))) == {"claimed": 1, "replayed": 0}


@pytest.mark.parametrize("body", [batch(), batch(("", "ann")), batch(("c", "@fees")), {"pool_id": POOL}])
def test_claims__bad_body__422(staked: House, body: Json) -> None:
    assert staked.refusal("/v1/claims/batch", body) == (422, "invalid_input")
