"""One message_id, one effect: replays, other bodies, refusals, twins."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.rewards import House, accrual, claim, deltas, release, rows_of

REPLAY = "Idempotent-Replay"


@pytest.fixture
def staked(house: House) -> House:
    """Ann holds 100 and 10 are pending; 50 are parked."""
    house.accrue("park", 50)
    house.stake("stake", "ann", 100)
    house.accrue("gain", 10)
    return house


CALLS = [
    ("/v1/accruals", accrual("m", 7), {"new_rewards_wei": "8", "source": "else", "pool_id": "other"}),
    ("/v1/claims", claim("m", "ann"), {"user_id": "ben", "pool_id": "other"}),
    ("/v1/parked/release", release("m", 7), {"amount_wei": "8", "pool_id": "other"}),
]


@pytest.mark.parametrize(("path", "body", "changes"), CALLS)
def test_replay__same_body__same_bytes_and_one_effect(
    staked: House, path: str, body: dict[str, str], changes: dict[str, str]
) -> None:
    first = staked.post(path, body)
    assert (first.status_code, first.headers.get(REPLAY)) == (201, None)
    pool, events = staked.pool(), len(staked.events())
    again = staked.post(path, dict(reversed(body.items())))
    assert (again.status_code, again.headers[REPLAY], again.data) == (200, "true", first.data)
    assert again.content_type == first.content_type
    assert (staked.pool(), len(staked.events())) == (pool, events)
    assert staked.differences() == []


@pytest.mark.parametrize(("path", "body", "changes"), CALLS)
def test_replay__other_body__422_names_the_fields_and_applies_nothing(
    staked: House, path: str, body: dict[str, str], changes: dict[str, str]
) -> None:
    staked.done(path, body)
    pool = staked.pool()
    for name, value in changes.items():
        answer = staked.post(path, body | {name: value})
        assert (answer.status_code, answer.get_json()["code"]) == (422, "message_id_reused")
        assert list(answer.get_json()["errors"]) == [name]
    assert staked.pool() == pool


def test_replay__under_another_endpoint__422(staked: House) -> None:
    staked.accrue("m", 1)
    answer = staked.post("/v1/claims", claim("m", "ann"))
    assert (answer.status_code, answer.get_json()["code"]) == (422, "message_id_reused")
    assert "endpoint" in answer.get_json()["errors"]
    answer = staked.post("/v1/stake-deltas", deltas(("m", "ann", 1, 0)))
    assert (answer.status_code, answer.get_json()["code"]) == (422, "message_id_reused")


def test_refusal__repeated_when_it_could_succeed__the_same_refusal(staked: House) -> None:
    first = staked.post("/v1/parked/release", release("r", 51))
    assert (first.status_code, first.get_json()["code"]) == (409, "insufficient_parked")
    staked.stake("out", "ann", -100)
    staked.accrue("more", 1)
    staked.stake("in", "ann", 1)
    assert staked.pool()["parked_wei"] == 51
    again = staked.post("/v1/parked/release", release("r", 51))
    assert (again.status_code, again.headers[REPLAY], again.data) == (409, "true", first.data)
    assert staked.pool()["parked_wei"] == 51
    answer = staked.post("/v1/parked/release", release("r", 50))
    assert (answer.status_code, answer.get_json()["code"]) == (422, "message_id_reused")


def test_malformed__then_well_formed_under_the_same_id__is_done(staked: House) -> None:
    assert staked.refusal("/v1/accruals", accrual("m", 1) | {"new_rewards_wei": "1.5"}) == (422, "invalid_input")
    assert staked.accrue("m", 1)["new_rewards_wei"] == "1"


def test_batch__known_items__are_replayed_and_the_rest_applied(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", 1, 0), ("s:2", "ben", 1, 0)))
    answer = house.post("/v1/stake-deltas", deltas(("s:3", "ann", 1, 0), ("s:2", "ben", 1, 0)))
    assert (answer.status_code, answer.get_json()) == (201, {"applied": 1, "replayed": 1})
    answer = house.post("/v1/stake-deltas", deltas(("s:1", "ann", 1, 0), ("s:2", "ben", 1, 0), ("s:3", "ann", 1, 0)))
    assert (answer.status_code, answer.get_json()) == (200, {"applied": 0, "replayed": 3})
    assert answer.headers[REPLAY] == "true"
    assert house.pool()["weight_wei"] == 3


def test_batch__one_item_differs__422_names_field_and_item_and_nothing_is_applied(house: House) -> None:
    house.stake("s:1", "ann", 1)
    answer = house.post("/v1/stake-deltas", deltas(("s:2", "ben", 5, 0), ("s:1", "ann", 2, 0)))
    assert (answer.status_code, answer.get_json()["code"]) == (422, "message_id_reused")
    assert list(answer.get_json()["errors"]) == ["staked_delta_wei"]
    assert "s:1" in answer.get_json()["detail"]
    assert house.pool()["weight_wei"] == 1
    assert house.done("/v1/stake-deltas", deltas(("s:2", "ben", 6, 0)))["applied"] == 1


def test_batch__one_id_twice__once_if_equal_refused_if_not(house: House) -> None:
    answer = house.post("/v1/stake-deltas", deltas(("s:1", "ann", 1, 0), ("s:1", "ann", 1, 0)))
    assert (answer.status_code, answer.get_json()) == (201, {"applied": 1, "replayed": 1})
    assert house.refusal("/v1/stake-deltas", deltas(("s:2", "ann", 1, 0), ("s:2", "ann", 2, 0))) == (
        422, "message_id_reused",
    )  # fmt: skip
    assert house.pool()["weight_wei"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/accruals", accrual("m", 7)), ("/v1/claims", claim("m", "ann")), ("/v1/parked/release", release("m", 7)),
     ("/v1/stake-deltas", deltas(("m", "ann", 7, 0), ("n", "ben", 7, 0)))],
)  # fmt: skip
def test_twins__fifty_at_once__one_effect(staked: House, path: str, body: dict[str, str]) -> None:
    before = len(staked.events())
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: staked.post(path, body), range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    if path != "/v1/stake-deltas":
        assert len({answer.data for answer in answers}) == 1
    assert len(staked.events()) - before == (2 if path == "/v1/stake-deltas" else 1)
    assert staked.differences() == []


def test_twin__still_running__409_in_progress_and_done_when_repeated(house: House) -> None:
    with house.engine.connect() as running, running.begin() as unfinished:
        rows_of(running, "INSERT INTO message_keys (message_id, endpoint, request) VALUES ('m', 'accruals', '{}')")
        answer = house.post("/v1/accruals", accrual("m", 7))
        assert (answer.status_code, answer.get_json()["code"]) == (409, "in_progress")
        assert int(answer.headers["Retry-After"]) >= 1
        answer = house.post("/v1/stake-deltas", deltas(("n", "ann", 1, 0), ("m", "ann", 1, 0)))
        assert (answer.status_code, answer.get_json()["code"]) == (409, "in_progress")
        unfinished.rollback()
    house.accrue("m", 7)
    house.stake("n", "ann", 1)
    assert house.differences() == []
