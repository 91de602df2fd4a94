"""Settings that are not one protocol's on one chain are refused by name, at start and at every use until they are right."""

from collections.abc import Callable

import pytest
import structlog

from apps.devnet.deployment import deploy
from apps.protocols import create_app
from tests.support.anvil import start_anvil
from tests.support.lido import Desk
from tests.support.protocols import NOBODY, House, make_house, make_settings

BUILD = ("submit", {"amount_wei": "1"})


def refused_detail(house: House) -> str:
    """The one detail with which everything that needs the chain is refused."""
    answers = [
        house.ask("/v1/lido/state"),
        house.ask("/v1/lido/history"),
        house.post("/v1/lido/transactions/submit", {"amount_wei": "1"}),
        house.post("/v1/reconciliations", {"message_id": "r:1"}),
    ]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.get_json()["code"] for answer in answers} == {"not_configured"}
    details = {answer.get_json()["detail"] for answer in answers}
    assert len(details) == 1
    assert house.client.get("/status/protocols").get_json()["checks"]["chain"]["ok"] is False
    return str(details.pop())


@pytest.mark.parametrize(
    ("field", "setting"),
    [("steth_address", "LIDO_STETH_ADDRESS"), ("withdrawal_queue_address", "LIDO_WITHDRAWAL_QUEUE_ADDRESS")],
)
def test_address__without_code__refused_by_the_settings_name(
    desk: Desk, database_url: str, field: str, setting: str
) -> None:
    detail = refused_detail(make_house(desk, database_url, **{field: desk.user}))
    assert setting in detail
    assert desk.user in detail


def test_queue__of_another_deployment__refused_and_named_by_the_locator(desk: Desk, database_url: str) -> None:
    other = deploy(desk.rpc_url)
    detail = refused_detail(make_house(desk, database_url, withdrawal_queue_address=other.withdrawal_queue))
    assert "LIDO_WITHDRAWAL_QUEUE_ADDRESS" in detail
    assert desk.deployment.withdrawal_queue in detail


def test_steth__that_its_locator_does_not_name__refused(desk: Desk, database_url: str) -> None:
    other = deploy(desk.rpc_url)
    code = desk.rpc("eth_getCode", other.steth, "latest")
    copy = "0x00000000000000000000000000000000000C0de0"
    desk.rpc("anvil_setCode", copy, code)
    slots = [desk.rpc("eth_getStorageAt", other.steth, hex(number), "latest") for number in range(4)]
    for number, value in enumerate(slots):
        desk.rpc("anvil_setStorageAt", copy, hex(number), value)
    house = make_house(desk, database_url, steth_address=copy, withdrawal_queue_address=other.withdrawal_queue)
    detail = refused_detail(house)
    assert "LIDO_STETH_ADDRESS" in detail
    assert other.steth in detail


def test_locator__none_named__addresses_are_taken_as_set(desk: Desk, database_url: str) -> None:
    for slot in range(8):
        if desk.lido.getLidoLocator().call() == "0x" + "00" * 20:
            break
        kept = desk.rpc("eth_getStorageAt", desk.deployment.steth, hex(slot), "latest")
        desk.rpc("anvil_setStorageAt", desk.deployment.steth, hex(slot), "0x" + "00" * 32)
        if desk.lido.getLidoLocator().call() != "0x" + "00" * 20:
            desk.rpc("anvil_setStorageAt", desk.deployment.steth, hex(slot), kept)
    assert desk.lido.getLidoLocator().call() == "0x" + "00" * 20
    make_house(desk, database_url).get("/v1/lido/state")


def test_chain_id__another_than_expected__refused_and_the_right_one_taken(
    desk: Desk, database_url: str, make_database: Callable[[str], str]
) -> None:
    assert "CHAIN_ID" in refused_detail(make_house(desk, database_url, chain_id=1))
    make_house(desk, make_database("protocols"), chain_id=31337).get("/v1/lido/state")


def test_nodes__of_two_chains__refused_even_when_the_first_is_right(desk: Desk, database_url: str) -> None:
    with start_anvil(chain_id=31338) as other:
        house = make_house(desk, database_url, rpc_urls=(desk.rpc_url, other.url))
        assert "different chains" in refused_detail(house)


def test_address__put_right_on_chain__next_use_answers(desk: Desk, database_url: str) -> None:
    code = desk.rpc("eth_getCode", desk.deployment.withdrawal_queue, "latest")
    desk.rpc("anvil_setCode", desk.deployment.withdrawal_queue, "0x")
    house = make_house(desk, database_url)
    assert house.refusal(BUILD[0], **BUILD[1])[1] == "not_configured"
    desk.rpc("anvil_setCode", desk.deployment.withdrawal_queue, code)
    house.build(BUILD[0], **BUILD[1])


@pytest.mark.parametrize(
    ("changes", "event"),
    [
        ({}, "lido_addresses_right"),
        ({"chain_id": 5}, "lido_addresses_wrong"),
        ({"rpc_urls": (NOBODY,)}, "lido_addresses_unchecked"),
    ],
)
def test_start__whatever_is_set__checked_and_told_in_the_log(
    desk: Desk, database_url: str, changes: dict[str, object], event: str
) -> None:
    app = create_app(make_settings(desk, database_url, **changes))
    with structlog.testing.capture_logs() as logs:
        app.extensions["addresses"].at_start()
    assert event in [entry["event"] for entry in logs]
