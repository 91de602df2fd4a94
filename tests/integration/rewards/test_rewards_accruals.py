"""Accruals, parked rewards and losses over HTTP."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from apps.common.database import transaction
from apps.rewards import index_math, standings, store
from apps.rewards.models import RewardPosition
from tests.support.rewards import POOL, House, accrual, deltas, make_house, release

P = 10**36
GWEI = 10**9
ETHER = 10**18


def test_accrual__gain__shape_and_pending(house: House) -> None:
    house.stake("s:1", "ann", 2 * ETHER)
    house.stake("s:2", "ben", ETHER)
    found = house.accrue("rebase:7:3", 1000)
    assert isinstance(found.pop("id"), int)
    assert found.pop("created_at").endswith("Z")
    assert found == {
        "message_id": "rebase:7:3",
        "pool_id": "eth_native",
        "source": "test",
        "new_rewards_wei": "1000",
        "fee_wei": "0",
        "distributed_wei": "1000",
        "parked_wei": "0",
        "acc_reward_per_share": str(1000 * P // (3 * ETHER)),
        "weight_wei": str(3 * ETHER),
    }
    assert (house.position("ann")["pending_wei"], house.position("ben")["pending_wei"]) == (666, 333)
    assert house.pool() == {
        "weight_wei": 3 * ETHER,
        "acc_reward_per_share": 1000 * P // (3 * ETHER),
        "remainder": 1000 * P % (3 * ETHER),
        "accrued_wei": 1000,
        "claimed_wei": 0,
        "parked_wei": 0,
        "deficit_wei": 0,
    }
    assert house.differences() == []


def test_accrual__fee__taken_of_what_is_left_after_the_deficit(make_database: Callable[[str], str]) -> None:
    house = make_house(make_database("rewards"), fee_bps=1000)
    house.stake("s:1", "ann", ETHER)
    assert house.accrue("a:1", 1001)["fee_wei"] == "100"
    assert house.accrue("a:2", 9)["fee_wei"] == "1"  # 100.1 + 0.9
    assert house.accrue("a:3", -500)["fee_wei"] == "0"
    assert house.pool()["deficit_wei"] == 500
    last = house.accrue("a:4", 700)
    assert (last["fee_wei"], last["distributed_wei"]) == ("20", "680")
    assert (house.pool()["deficit_wei"], house.pool()["accrued_wei"]) == (0, 900 + 9 - 500 + 680)
    assert house.differences() == []


def test_accrual__zero__counts_and_changes_nothing(house: House) -> None:
    house.stake("s:1", "ann", 5)
    before = house.pool()
    assert house.accrue("a:1", 0)["distributed_wei"] == "0"
    assert house.pool() == before


def test_accrual__nothing_staked__parked_until_released(house: House) -> None:
    found = house.accrue("a:1", 1000)
    assert (found["parked_wei"], found["distributed_wei"], found["weight_wei"]) == ("1000", "0", "0")
    house.stake("s:1", "ann", 1)
    assert (house.position("ann")["pending_wei"], house.pool()["parked_wei"]) == (0, 1000)
    freed = house.release("r:1", 400)
    assert list(freed) == list(found)
    assert (freed["distributed_wei"], freed["parked_wei"], freed["new_rewards_wei"]) == ("400", "-400", "0")
    assert freed["source"] == "parked"
    assert (house.position("ann")["pending_wei"], house.pool()["parked_wei"]) == (400, 600)
    assert house.pool()["accrued_wei"] == 1000
    assert house.differences() == []


def test_release__too_much_or_nobody_there__refused(house: House) -> None:
    house.accrue("a:1", 10)
    assert house.refusal("/v1/parked/release", release("r:1", 10)) == (409, "nothing_staked")
    house.stake("s:1", "ann", 1)
    assert house.refusal("/v1/parked/release", release("r:2", 11)) == (409, "insufficient_parked")
    assert house.pool()["parked_wei"] == 10


def test_release__a_parked_loss__is_borne_once_and_without_a_second_deficit(house: House) -> None:
    house.accrue("a:1", -3 * GWEI)
    assert (house.pool()["parked_wei"], house.pool()["deficit_wei"]) == (-3 * GWEI, 3 * GWEI)
    house.stake("s:1", "ann", ETHER)
    assert house.refusal("/v1/parked/release", release("r:1", 5)) == (409, "insufficient_parked")
    assert house.refusal("/v1/parked/release", release("r:2", -3 * GWEI - 1)) == (409, "insufficient_parked")
    freed = house.release("r:3", -2 * GWEI)
    assert (freed["distributed_wei"], freed["parked_wei"]) == (str(-2 * GWEI), str(2 * GWEI))
    assert house.position("ann")["staked_wei"] == ETHER - 2 * GWEI  # one gwei or more: settled at once
    assert (house.pool()["parked_wei"], house.pool()["deficit_wei"]) == (-GWEI, 3 * GWEI)
    assert house.differences() == []


@pytest.mark.parametrize("amount", ["0", "-1"])
def test_release__nothing_or_a_loss_where_none_is_parked__422(house: House, amount: str) -> None:
    house.accrue("a:1", 10)
    house.stake("s:1", "ann", 1)
    answer = house.post("/v1/parked/release", release("r:1", 1) | {"amount_wei": amount})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["amount_wei"])
    house.release("r:1", 1)


def test_loss__below_one_gwei__stays_pending(house: House) -> None:
    house.stake("s:1", "ann", ETHER)
    house.accrue("a:1", 1 - GWEI)
    assert house.position("ann")["pending_wei"] == 1 - GWEI
    assert [event["kind"] for event in house.events()] == ["stake_delta", "accrual"]


def test_loss__one_gwei__settled_into_every_position_and_each_an_event(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", 2 * ETHER, 0), ("s:2", "ben", ETHER, 0), ("s:3", "cat", 5, 0)))
    house.stake("s:4", "ben", -ETHER + 1, ETHER - 1)
    house.accrue("a:1", 90)
    house.accrue("rebase:9:1", -GWEI)
    settled = [event for event in house.events() if event["kind"] == "settle"]
    assert [(event["message_id"], event["user_id"]) for event in settled] == [
        ("rebase:9:1:settle:1", "ann"), ("rebase:9:1:settle:2", "ben"), ("rebase:9:1:settle:3", "cat"),
    ]  # fmt: skip
    ann, ben, cat = (house.position(user) for user in ("ann", "ben", "cat"))
    assert ann["staked_wei"] - 2 * ETHER == ann["claimed_wei"] == int(settled[0]["claimed_wei"]) == -666_666_607
    assert (ben["staked_wei"], ben["exiting_wei"]) == (0, ETHER - 1 + 1 + ben["claimed_wei"])
    assert (settled[1]["staked_delta_wei"], settled[1]["exiting_delta_wei"]) == ("-1", str(ben["claimed_wei"] + 1))
    assert cat["staked_wei"] == 4  # floor(-5 * 10^9 / 3 ETH) is -1
    assert {position["pending_wei"] for position in (ann, ben, cat)} == {0}
    pool = house.pool()
    assert pool["weight_wei"] == sum(position["staked_wei"] + position["exiting_wei"] for position in (ann, ben, cat))
    assert (pool["claimed_wei"], pool["deficit_wei"]) == (
        sum(position["claimed_wei"] for position in (ann, ben, cat)), GWEI,
    )  # fmt: skip
    assert house.differences() == []


def test_loss__empties_a_position__its_fraction_of_a_wei_returns_to_the_pool(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", ETHER, 0), ("s:2", "dot", 1, 0), ("s:3", "eve", 0, 1)))
    house.accrue("a:1", -GWEI)  # floor(-1 * 10^9 / 1 ETH) is -1: all of it
    for user in ("dot", "eve"):
        assert house.position(user) == dict.fromkeys(house.position(user), 0) | {"claimed_wei": -1}
    assert house.sql("SELECT sum(pending_scaled) FROM reward_positions WHERE user_id <> 'ann'") == [(0,)]
    assert house.pool()["remainder"] > P  # two fractions of nearly one wei
    assert house.differences() == []


def test_lowest_standing__positions_of_every_kind__the_statement_is_the_arithmetic(house: House) -> None:
    """After every step, so that each kind is the poorest once: exiting, with pending of either sign, without weight."""
    steps = (
        lambda: house.stake("s:1", "ben", 3, 4),
        lambda: house.accrue("a:1", 5),
        lambda: house.claim("c:1", "ben"),
        lambda: house.stake("s:2", "cat", 11),
        lambda: house.accrue("a:2", -6),
        lambda: house.stake("s:3", "ben", 2, 3),
        lambda: house.accrue("a:3", 2 * GWEI),
        lambda: house.stake("s:4", "ben", -5, -7),
        lambda: house.stake("s:5", "dan", 0, 13),
    )
    seen = set()
    for step in steps:
        step()
        with transaction(house.client.application.extensions["sessions"]) as session:
            pool = store.lock_pool(session, POOL)
            held = [store.position_state(row) for row in session.scalars(select(RewardPosition))]
            lowest = standings.lowest_standing(session, POOL)
            assert lowest is not None
            assert lowest == index_math.lowest_standing(held)
            assert pool.lowest is None or pool.lowest <= lowest
        index = pool.state.index
        falls = [(index_math.bearable_fall(held, each), each) for each in (index, index - P, index + P // 3)]
        assert falls == [(index_math.fall_at(lowest, each), each) for _, each in falls]
        seen.add(falls[0][0])
    assert len(seen) >= 5


@pytest.mark.parametrize("loss", [101, 2 * GWEI])
def test_loss__greater_than_all_stake__the_rest_is_parked(house: House, loss: int) -> None:
    house.stake("s:1", "ann", 60, 40)
    found = house.accrue("a:1", -loss)
    assert (found["new_rewards_wei"], found["distributed_wei"], found["parked_wei"]) == (
        str(-loss), "-100", str(100 - loss),
    )  # fmt: skip
    settled = house.events(kind="settle")
    assert [(event["staked_delta_wei"], event["exiting_delta_wei"]) for event in settled] == [("-60", "-40")]
    pool = house.pool()
    assert (pool["weight_wei"], pool["accrued_wei"], pool["claimed_wei"]) == (0, -loss, -100)
    assert (pool["parked_wei"], pool["deficit_wei"]) == (100 - loss, loss)
    assert house.refusal("/v1/parked/release", release("r:1", 100 - loss)) == (409, "nothing_staked")
    assert house.accrue("a:1b", 1)["parked_wei"] == "1"
    assert house.differences() == []


def test_loss__more_than_one_of_them_is_worth__the_poorest_sets_the_limit_and_all_are_settled(house: House) -> None:
    house.stake("s:1", "ann", 100)
    house.accrue("a:1", 100)
    house.stake("s:2", "ben", 100)
    house.accrue("a:2", -50)  # ann is worth 175, ben 75, both weigh 100
    found = house.accrue("a:3", -151)
    assert (found["distributed_wei"], found["parked_wei"]) == ("-150", "-1")
    ann, ben = house.position("ann"), house.position("ben")
    assert (ann["staked_wei"], ann["pending_wei"]) == (100, 0)
    assert (ben["staked_wei"], ben["pending_wei"]) == (0, 0)
    assert house.pool()["parked_wei"] == -1
    assert house.release("r:1", -1)["distributed_wei"] == "-1"
    assert (house.position("ann")["pending_wei"], house.pool()["parked_wei"]) == (-1, 0)
    assert house.differences() == []


def test_loss__just_what_the_poorest_is_worth__nothing_is_parked(house: House) -> None:
    house.stake("s:1", "ann", 100)
    house.accrue("a:1", 100)
    house.stake("s:2", "ben", 100)
    assert house.accrue("a:2", -200)["parked_wei"] == "0"
    assert (house.position("ann")["pending_wei"], house.position("ben")["pending_wei"]) == (0, -100)
    assert house.differences() == []


def test_loss__a_few_wei_on_a_position_worth_nothing__does_not_take_it_below_zero(house: House) -> None:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", 10, 0), ("s:2", "ben", ETHER, 0)))
    house.accrue("a:1", -(10**8))  # floor(-10 * 10^8 / (1 ETH + 10)) is -1
    house.stake("s:3", "ann", -9)  # weighs 1 wei and is worth a fraction of one
    found = house.accrue("a:2", -GWEI + 1)
    assert (found["distributed_wei"], found["parked_wei"]) == ("-999999999", "0")
    house.stake("s:4", "ben", 5)
    assert house.claim("c:1", "ann") == -1
    assert house.differences() == []


def test_release__a_loss_that_the_positions_cannot_bear__refused_and_nothing_changed(house: House) -> None:
    house.accrue("a:1", -3 * GWEI)
    house.stake("s:1", "ann", GWEI)
    before = house.pool(), house.position("ann")
    answer = house.post("/v1/parked/release", release("r:1", -GWEI - 1))
    assert (answer.status_code, answer.get_json()["code"]) == (409, "loss_exceeds_position")
    assert f"a loss of {GWEI} wei at most" in answer.get_json()["detail"]
    assert (house.pool(), house.position("ann")) == before
    house.release("r:2", -GWEI)
    assert (house.pool()["parked_wei"], house.position("ann")["staked_wei"]) == (-2 * GWEI, 0)
    assert house.differences() == []


def test_loss__under_a_long_message_id__settlements_have_names_that_fit_the_ledger(house: House) -> None:
    house.stake("s:1", "ann", ETHER)
    for number, length in enumerate((140, 141, 200), 1):
        message_id = str(number) * length
        accrued = house.accrue(message_id, -GWEI)
        prefix = message_id if length == 140 else f"accrual:{accrued['id']}"
        assert house.events(kind="settle")[-1]["message_id"] == f"{prefix}:settle:1"
    assert house.differences() == []


def test_accrual__out_of_range__refused_and_nothing_changed(house: House) -> None:
    house.accrue("a:1", 2**256 - 1)
    assert house.refusal("/v1/accruals", accrual("a:2", 1)) == (409, "amount_out_of_range")
    assert house.pool()["accrued_wei"] == 2**256 - 1


@pytest.mark.parametrize(
    "amount", ["1.5", "1e3", "NaN", "Infinity", "-0", "+1", "01", "", " 1", "0x1", "١", str(2**256), 1, True, None]
)
def test_accrual__no_whole_number_of_wei__422(house: House, amount: object) -> None:
    body = accrual("a:1", 0) | {"new_rewards_wei": amount}
    answer = house.post("/v1/accruals", body)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")
    assert list(answer.get_json()["errors"]) == ["new_rewards_wei"]


def test_accrual__missing_field_or_unknown_field__422_names_it(house: House) -> None:
    body = accrual("a:1", 5)
    for name in body:
        answer = house.post("/v1/accruals", {key: value for key, value in body.items() if key != name})
        assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [name])
    answer = house.post("/v1/accruals", body | {"speed": "fast"})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["speed"])


def test_pools__two__do_not_touch_each_other(house: House) -> None:
    house.stake("s:1", "ann", 10, pool_id="one")
    house.stake("s:2", "ann", 10, pool_id="two")
    house.accrue("a:1", 7, pool_id="one")
    assert house.position("ann", "one")["pending_wei"] == 7
    assert house.position("ann", "two")["pending_wei"] == 0
    assert {event["pool_id"] for event in house.events(pool_id="one")} == {"one"}
    assert house.differences() == []
