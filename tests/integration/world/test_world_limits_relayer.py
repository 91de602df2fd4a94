"""At the relayer what waits takes nobody's place, whatever it waits for, and says truly what that is."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from apps.common.database import transaction
from apps.common.wei import ETHER
from relayer.signing.policy import PAYOUT
from tests.support.anvil import start_anvil
from tests.support.relayer import CUSTODY, OPERATOR, STRANGER, House, Node, make_house

PURSE = 100 * ETHER


@pytest.fixture
def node() -> Iterator[Node]:
    with start_anvil() as anvil:
        found = Node(anvil.url)
        found.mine_by_hand()
        found.rpc("anvil_setBalance", OPERATOR, hex(PURSE))
        yield found


@pytest.fixture
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("relayer")


@pytest.fixture
def house(database_url: str, node: Node) -> House:
    return make_house(database_url, node)


def payouts(house: House, count: int, wei: int, prefix: str = "payout") -> list[str]:
    names = [f"{prefix}:{number}" for number in range(count)]
    for name in names:
        assert house.post(name, to=STRANGER, purpose=PAYOUT, value_wei=str(wei)).status_code == 202
    return names


def explained(house: House, name: str) -> list[str]:
    answer = house.client.get(f"/v1/transactions/{name}/explain").get_json()
    return [item["code"] for item in answer["reasons"]]


def test_funds__payouts_without_funds_before_everything__what_can_go_goes(house: House) -> None:
    waiting = payouts(house, 70, 200 * ETHER)  # more than there is room in flight
    house.post("claim", value_wei="0")  # as what brings funds: it needs gas alone
    house.post("stake", value_wei=str(20 * ETHER))
    assert explained(house, waiting[-1]) != []
    assert house.run("claim")["status"] == "confirmed"
    assert house.run("stake")["status"] == "confirmed"
    house.pump()
    for name in (waiting[0], waiting[-1]):
        assert explained(house, name) == ["insufficient_funds"]
        assert house.message(name)["reason"]["code"] == "insufficient_funds"


def test_funds__a_thousand_payouts_without_funds__the_claim_behind_them_goes_at_the_first_tick(house: House) -> None:
    payouts(house, 1000, 200 * ETHER)
    house.post("claim", value_wei="0")
    house.pump()
    assert house.message("claim")["status"] == "broadcast"


def test_funds__payouts_that_would_take_all__the_claims_gas_is_left(house: House, node: Node) -> None:
    node.rpc("anvil_setBalance", OPERATOR, hex(ETHER))
    payouts(house, 1, ETHER - 10**14)  # all but its own gas
    house.post("claim", value_wei="0")
    house.pump()
    assert house.message("claim")["status"] == "broadcast"
    assert house.message("payout:0")["reason"]["code"] == "insufficient_funds"


def test_room__messages_that_fail_their_simulation_while_others_are_in_flight__give_their_place_to_the_next(
    database_url: str, node: Node
) -> None:
    house = make_house(database_url, node, max_in_flight=4)
    node.rpc("anvil_setCode", STRANGER, "0x60006000fd")
    house.post("first")
    house.pump()
    payouts(house, 10, 1)  # each would revert, and is asked again once what is in flight is mined
    house.post("last", value_wei="1")
    house.pump()
    assert house.message("last")["status"] == "broadcast"
    assert house.message("payout:9")["status"] == "queued"


def test_room__all_of_it_taken__explain_says_so(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_in_flight=2)
    for name in ("a", "b", "c", "d"):
        house.post(name, value_wei="1")
    house.pump()
    assert explained(house, "c") == ["no_room"]
    house.mine_and_pump(4)
    assert house.message("d")["status"] in {"broadcast", "mined", "confirmed"}


def test_day__the_cap_is_used_up__waits_with_its_reason_and_what_fits_goes(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_value_per_day_wei=10)
    payouts(house, 1, 6)
    payouts(house, 1, 5, "second")
    payouts(house, 1, 4, "third")
    payouts(house, 1, 11, "never")
    house.post("claim", value_wei="0")
    assert house.run("third:0")["status"] == "confirmed"
    assert house.run("claim")["status"] == "confirmed"
    waiting = house.message("second:0")
    assert (waiting["status"], waiting["reason"]["code"]) == ("queued", "daily_value_over_cap")
    assert explained(house, "second:0") == ["daily_value_over_cap"]
    assert house.message("never:0")["reason"]["code"] == "value_over_cap"
    wider = make_house(database_url, node, max_value_per_day_wei=20)
    assert wider.run("second:0")["status"] == "confirmed"


def test_day__waited_a_day_for_the_cap__smaller_ones_do_not_take_its_room_any_more(
    database_url: str, node: Node
) -> None:

    house = make_house(database_url, node, max_value_per_day_wei=10)
    payouts(house, 1, 6)
    house.run("payout:0")
    payouts(house, 1, 8, "large")
    with transaction(house.context.sessions) as session:
        session.execute(text("ALTER TABLE messages DISABLE TRIGGER USER"))
        session.execute(
            text("UPDATE messages SET created_at = created_at - interval '25 hours' WHERE status = 'queued'")
        )
        session.execute(text("ALTER TABLE messages ENABLE TRIGGER USER"))
    payouts(house, 1, 2, "small")
    house.pump()
    assert house.message("small:0")["reason"]["code"] == "daily_value_over_cap"


def test_limits__what_is_applied__is_told_and_falls_with_what_is_signed(database_url: str, node: Node) -> None:
    house = make_house(database_url, node, max_value_per_tx_wei=7, max_value_per_day_wei=10)
    before: dict[str, Any] = house.client.get("/v1/limits").get_json()
    assert (before["max_value_per_tx_wei"], before["value_left_today_wei"]) == ("7", "10")
    payouts(house, 1, 6)
    house.post("inside", to=CUSTODY, value_wei="5")
    house.pump()
    assert house.client.get("/v1/limits").get_json()["value_left_today_wei"] == "4"


def test_candidates__longer_lines_than_a_tick_looks_at__each_is_looked_at_in_turn(house: House, node: Node) -> None:
    """Three hundred that cannot go stand before one that can; none of them is ever refused."""
    closed = "0x" + "0c" * 20
    node.rpc("anvil_setCode", closed, "0x60006000fd")
    house.post("first", value_wei="1")
    house.pump()
    for number in range(300):
        house.post(f"closed:{number}", to=closed, purpose=PAYOUT, value_wei="1", gas_limit=None)
    house.post("last", value_wei="1")
    for _ in range(4):
        house.pump()  # nothing is mined: whatever reverts is kept
    assert house.message("last")["status"] == "broadcast"
    assert house.message("closed:299")["status"] == "queued"
