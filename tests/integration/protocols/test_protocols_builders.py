"""Builders: what is built works on the chain, what would not is refused with the switch named."""

import pytest

from apps.common.wei import ETHER
from tests.support.lido import PURSE_WEI, Desk
from tests.support.protocols import House, make_house

KEYS = ["from", "to", "data", "value_wei", "gas_limit", "summary", "elements"]


def item(wei: int, reference: str = "request:1") -> dict[str, str]:
    return {"reference": reference, "amount_wei": str(wei)}


def test_submit__built__stakes_the_whole_amount(house: House) -> None:
    desk = house.desk
    built = house.build("submit", amount_wei=str(5 * ETHER))
    assert list(built) == KEYS
    assert (built["from"], built["to"]) == (desk.operator, desk.deployment.steth)
    assert (built["value_wei"], built["elements"]) == (str(5 * ETHER), [])
    assert isinstance(built["gas_limit"], int)
    receipt = desk.send(built)
    assert desk.events("Submitted", receipt)[0]["amount"] == 5 * ETHER
    assert receipt["gasUsed"] < built["gas_limit"] < 2 * receipt["gasUsed"]


def test_submit__one_wei_above_the_limit__refused_and_at_it_built(house: House) -> None:
    house.desk.oracle.set_stake_limit(100 * ETHER, 0)
    assert house.refusal("submit", amount_wei=str(100 * ETHER + 1)) == (409, "stake_limit_exceeded")
    house.desk.send(house.build("submit", amount_wei=str(100 * ETHER)))
    assert house.refusal("submit", amount_wei="1") == (409, "stake_limit_exceeded")


def test_submit__no_limit_set__built(house: House) -> None:
    house.desk.oracle.set_stake_limit(0, 0)
    house.build("submit", amount_wei=str(ETHER))


def test_submit__switches__each_named(house: House) -> None:
    house.desk.oracle.pause_staking()
    assert house.refusal("submit", amount_wei="1") == (409, "staking_paused")
    house.desk.oracle.stop()
    assert house.refusal("submit", amount_wei="1") == (409, "protocol_stopped")


def test_submit__purse_short__underfunded_with_the_missing_wei(house: House) -> None:
    answer = house.post("/v1/lido/transactions/submit", {"amount_wei": str(PURSE_WEI + 7)})
    held = house.desk.balance(house.desk.operator)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "operator_underfunded")
    assert answer.get_json()["errors"] == {"missing_wei": [str(PURSE_WEI + 7 - held)]}


@pytest.mark.parametrize("amount", ["0", "-1", "1.5", "0x1", 1, None, str(2**256)])
def test_submit__no_amount_of_wei__invalid_input(house: House, amount: object) -> None:
    assert house.refusal("submit", amount_wei=amount) == (422, "invalid_input")


def test_approve__built__sets_the_allowance_even_when_stopped(house: House) -> None:
    desk = house.desk
    desk.oracle.stop()
    built = house.build("approve", amount_wei=str(3 * ETHER))
    assert (built["to"], built["value_wei"]) == (desk.deployment.steth, "0")
    desk.send(built)
    assert desk.lido.allowance(desk.operator, desk.deployment.withdrawal_queue).call() == 3 * ETHER


def test_request__built__split_in_order_and_sent_as_elements_say(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 4000 * ETHER)
    desk.approve(desk.operator, 4000 * ETHER)
    items = [item(2000 * ETHER + 5, "a"), item(100, "b"), item(1000 * ETHER, "c")]
    built = house.build("request-withdrawals", items=items)
    wanted = [
        ("a", 1000 * ETHER),
        ("a", 1000 * ETHER - 95),
        ("a", 100),
        ("b", 100),
        ("c", 1000 * ETHER),
    ]
    assert [(part["reference"], int(part["amount_wei"])) for part in built["elements"]] == wanted
    receipt = desk.send(built)
    events = desk.events("WithdrawalRequested", receipt)
    assert [event["amountOfStETH"] for event in events] == [wei for _, wei in wanted]
    assert {event["owner"] for event in events} == {desk.operator}


def test_request__hundred_elements__fit_into_one_transaction_and_one_more_does_not(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, ETHER)
    desk.approve(desk.operator, ETHER)
    built = house.build("request-withdrawals", items=[item(100)] * 100)
    assert built["gas_limit"] <= 16_777_216
    assert len(desk.events("WithdrawalRequested", desk.send(built))) == 100
    assert house.refusal("request-withdrawals", items=[item(100)] * 101) == (422, "invalid_input")
    many = [item(100)] * 99 + [item(1000 * ETHER + 100)]
    assert house.refusal("request-withdrawals", items=many) == (422, "too_many_elements")


def test_request__astronomical_amount__refused_at_once(house: House) -> None:
    assert house.refusal("request-withdrawals", items=[item(2**256 - 1)]) == (422, "too_many_elements")


def test_request__below_the_minimum__names_the_item(house: House) -> None:
    answer = house.post("/v1/lido/transactions/request-withdrawals", {"items": [item(100), item(99)]})
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")
    assert list(answer.get_json()["errors"]) == ["items.1.amount_wei"]


def test_request__switches__each_named(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, ETHER)
    desk.approve(desk.operator, ETHER)
    desk.oracle.pause_queue()
    assert house.refusal("request-withdrawals", items=[item(100)]) == (409, "queue_paused")
    desk.oracle.stop()
    assert house.refusal("request-withdrawals", items=[item(100)]) == (409, "protocol_stopped")
    desk.oracle.resume()
    desk.oracle.resume_queue()
    desk.oracle.pause_staking()
    desk.oracle.set_bunker(active=True)
    house.build("request-withdrawals", items=[item(100)])


def test_request__allowance_or_balance_short__named(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, ETHER)
    held = desk.steth(desk.operator)
    desk.approve(desk.operator, held - 1)
    assert house.refusal("request-withdrawals", items=[item(held)]) == (409, "allowance_insufficient")
    answer = house.post("/v1/lido/transactions/request-withdrawals", {"items": [item(held + 7)]})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "steth_insufficient")
    assert answer.get_json()["errors"] == {"missing_wei": ["7"]}
    desk.approve(desk.operator, held)
    desk.send(house.build("request-withdrawals", items=[item(held)]))


@pytest.fixture
def withdrawals(house: House) -> list[int]:
    """Three of the operator, the first two finalized, and one of somebody else."""
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    desk.submit(desk.user, 10 * ETHER)
    ids = desk.request(desk.operator, [ETHER, 2 * ETHER])
    ids += desk.request(desk.user, [ETHER])
    desk.oracle.finalize(ids[0])
    desk.oracle.finalize(ids[2])
    return [*ids, *desk.request(desk.operator, [ETHER])]


def test_claim__unsorted_and_repeated__pays_custody_once_each(house: House, withdrawals: list[int]) -> None:
    desk, (first, second, *_) = house.desk, withdrawals
    before = desk.balance(desk.custody)
    built = house.build("claim", withdrawal_ids=[second, first, second])
    assert (built["to"], built["value_wei"], built["elements"]) == (desk.deployment.withdrawal_queue, "0", [])
    paid = [event["amountOfETH"] for event in desk.events("WithdrawalClaimed", desk.send(built))]
    assert len(paid) == 2
    assert desk.balance(desk.custody) == before + sum(paid)


def test_claim__impossible__code_and_ids(house: House, withdrawals: list[int]) -> None:
    desk, (first, second, foreign, waiting) = house.desk, withdrawals
    desk.claim(desk.operator, [first], desk.custody)
    for bad, status, code in (
        (first, 409, "withdrawal_claimed"),
        (foreign, 409, "withdrawal_not_owned"),
        (waiting, 409, "withdrawal_not_finalized"),
        (999, 422, "withdrawal_unknown"),
    ):
        answer = house.post("/v1/lido/transactions/claim", {"withdrawal_ids": [second, bad]})
        assert (answer.status_code, answer.get_json()["code"]) == (status, code)
        assert answer.get_json()["errors"] == {"withdrawal_ids": [str(bad)]}


def test_claim__queue_paused_and_protocol_stopped__still_built(house: House, withdrawals: list[int]) -> None:
    house.desk.oracle.pause_queue()
    house.desk.oracle.stop()
    house.desk.send(house.build("claim", withdrawal_ids=withdrawals[:2]))


def test_claim__over_a_hundred__too_many(house: House) -> None:
    assert house.refusal("claim", withdrawal_ids=list(range(1, 102))) == (422, "too_many_elements")
    for ids in ([], [0], ["1"], [1.5]):
        assert house.refusal("claim", withdrawal_ids=ids) == (422, "invalid_input")


def test_claim__custody_refuses_ether__refused_by_its_name(desk: Desk, database_url: str) -> None:
    closed = make_house(desk, database_url, custody_address=desk.deployment.withdrawal_queue)
    desk.submit(desk.operator, ETHER)
    (number,) = desk.request(desk.operator, [1000])
    desk.oracle.finalize()
    answer = closed.post("/v1/lido/transactions/claim", {"withdrawal_ids": [number]})
    assert (answer.status_code, answer.get_json()["code"]) == (409, "custody_refuses_eth")
    assert "CantSendValueRecipientMayHaveReverted" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("field", "setting"),
    [
        ("steth_address", "LIDO_STETH_ADDRESS"),
        ("withdrawal_queue_address", "LIDO_WITHDRAWAL_QUEUE_ADDRESS"),
        ("operator_address", "RELAYER_OPERATOR_ADDRESS"),
        ("custody_address", "CUSTODY_ETH_ADDRESS"),
    ],
)
@pytest.mark.parametrize("value", ["0x" + "0" * 40, "0xYourCustody", None])
def test_placeholder__where_it_is_needed__refused_by_name(
    desk: Desk, database_url: str, field: str, setting: str, value: str | None
) -> None:
    house = make_house(desk, database_url, **{field: value})
    answer = house.post("/v1/lido/transactions/submit", {"amount_wei": "1"})
    assert (answer.status_code, answer.get_json()["code"]) == (503, "not_configured")
    assert setting in answer.get_json()["detail"]


def test_approve__placeholder_custody__not_needed(desk: Desk, database_url: str) -> None:
    make_house(desk, database_url, custody_address=None).build("approve", amount_wei="1")


def test_address_without_contract__state__not_configured(desk: Desk, database_url: str) -> None:
    answer = make_house(desk, database_url, steth_address=desk.user).ask("/v1/lido/state")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "not_configured")
    assert desk.user in answer.get_json()["detail"]
