"""What nobody can be paid at is refused by name before it is signed, and what a payee may be is not."""

from collections.abc import Callable, Iterator

import pytest
from eth_typing import HexStr
from web3 import Web3
from web3.types import Wei

from apps.common.wei import ETHER
from apps.devnet.deployment import connect, deploy
from apps.ethereum.jsonrpc import Unanswered
from apps.ethereum.payees import KNOWN
from relayer.signing.policy import PAYOUT, Proposal, Rules, judge
from tests.support.anvil import start_anvil
from tests.support.relayer import CUSTODY, OPERATOR, STRANGER, House, Node, make_house

ACCEPTS, REVERTS = "0x00", "0x60006000fd"
OTHER_KEY = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with start_anvil() as anvil:
        yield Node(anvil.url)


@pytest.fixture(scope="module")
def lido(node: Node) -> dict[str, str]:
    """Addresses of the protocol, what only its locator names among them."""
    deployed = deploy(node.url)
    web3 = connect(node.url)
    answer = web3.eth.call(
        {"to": web3.to_checksum_address(deployed.steth), "data": HexStr("0x" + selector("getLidoLocator()"))}
    )
    locator = web3.to_checksum_address(answer[-20:])
    node.mine_by_hand()
    return {"stETH": deployed.steth, "withdrawal-queue": deployed.withdrawal_queue, "locator": locator}


def selector(signature: str) -> str:

    return Web3.keccak(text=signature)[:4].hex()


@pytest.fixture
def house(make_database: Callable[[str], str], node: Node, lido: dict[str, str]) -> House:
    return make_house(
        make_database("relayer"), node, steth_address=lido["stETH"], queue_address=lido["withdrawal-queue"]
    )


def pay(house: House, name: str, to: str, **changes: str) -> None:
    posted = house.post(name, to=to, purpose=PAYOUT, **{"value_wei": "5", "gas_limit": None, **changes})
    assert posted.status_code == 202, posted.get_json()


def test_payout__to_a_contract_of_the_protocol__refused_by_name_and_no_nonce_used(
    house: House, lido: dict[str, str]
) -> None:
    for name, to in lido.items():
        pay(house, name, to)
    house.pump()
    for name, to in lido.items():
        found = house.message(name)
        assert (found["status"], found["nonce"], found["attempts"]) == ("rejected", None, [])
        assert found["reason"]["code"] == "payout_target_refused"
        assert to in found["reason"]["detail"]
        assert name.split("-")[-1] in found["reason"]["detail"]


@pytest.mark.parametrize(
    "to", [CUSTODY, OPERATOR, "0x" + "00" * 19 + "01", "0x" + "00" * 18 + "0100", "0x" + "00" * 18 + "dEaD"]
)
def test_payout__to_the_house_or_to_nobody__refused_before_signing(house: House, to: str) -> None:
    pay(house, "m:1", to.lower())
    house.pump()
    assert house.message("m:1")["reason"]["code"] == "payout_target_refused"


def test_payout__to_a_contract_wallet__paid_and_to_one_that_takes_no_ether__refused_by_simulation(house: House) -> None:
    wallet, closed = "0x" + "0a" * 20, "0x" + "0b" * 20
    house.node.rpc("anvil_setCode", wallet, ACCEPTS)
    house.node.rpc("anvil_setCode", closed, REVERTS)
    pay(house, "closed", closed)
    pay(house, "wallet", wallet)
    assert house.run("wallet")["status"] == "confirmed"
    assert house.message("closed")["reason"]["code"] == "simulation_reverted"
    assert house.node.balance(wallet) == 5


def test_payout__node_does_not_say_what_the_locator_names__waits_and_other_messages_go(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:

    def silent(_endpoint: object) -> dict[str, str]:
        raise Unanswered("timeout")

    monkeypatch.setattr(house.context.protocol, "names", silent)
    pay(house, "payout", STRANGER)
    house.post("inside")
    assert house.run("inside")["status"] == "confirmed"
    found = house.message("payout")
    assert (found["status"], found["reason"]["code"]) == ("queued", "targets_unknown")
    monkeypatch.undo()
    assert house.run("payout")["status"] == "confirmed"


def test_payout__address_with_a_wrong_checksum__422(house: House) -> None:
    wrong = STRANGER[:-1] + STRANGER[-1].swapcase()
    assert house.post("m:1", to=wrong, purpose=PAYOUT).status_code == 422


def test_payouts__past_their_own_cap_of_the_day__wait_and_what_stays_in_the_house_goes(
    make_database: Callable[[str], str], node: Node, lido: dict[str, str]
) -> None:
    house = make_house(make_database("relayer"), node, max_payout_per_tx_wei=7, max_payout_per_day_wei=9)
    pay(house, "first", STRANGER)
    pay(house, "second", STRANGER)
    pay(house, "large", STRANGER, value_wei="8")
    house.post("inside")
    assert house.run("inside")["status"] == "confirmed"
    assert house.message("first")["status"] == "confirmed"
    waiting = house.message("second")
    assert (waiting["status"], waiting["reason"]["code"]) == ("queued", "daily_value_over_cap")
    assert "MAX_PAYOUT_PER_DAY_WEI" in waiting["reason"]["detail"]
    large = house.message("large")
    assert (large["status"], large["reason"]["code"]) == ("rejected", "value_over_cap")
    assert "MAX_PAYOUT_PER_TX_WEI" in large["reason"]["detail"]
    limits = house.client.get("/v1/limits").get_json()
    assert [limits[f"{name}_wei"] for name in ("max_payout_per_tx", "max_payout_per_day", "payout_left_today")] == [
        "7",
        "9",
        "4",
    ]
    pay(house, "small", STRANGER, value_wei="4")
    assert house.run("small")["status"] == "confirmed"


RULES = Rules(CUSTODY, OPERATOR, None, None, ETHER, 10 * ETHER, frozenset({OTHER_KEY}))


@pytest.mark.parametrize("to", [*KNOWN, OTHER_KEY, CUSTODY, OPERATOR])
def test_judge__payout_to_what_no_payee_has__refused_from_both_senders(to: str) -> None:
    for sender in (CUSTODY, OPERATOR):
        verdict = judge(RULES, Proposal(sender, to, b"", 1, None, PAYOUT))
        assert verdict is not None
        assert verdict.code == "payout_target_refused"


def test_judge__known_addresses__are_their_own_checksums() -> None:

    assert [Web3.to_checksum_address(address) for address in KNOWN] == list(KNOWN)
    assert judge(RULES, Proposal(OPERATOR, STRANGER, b"", Wei(1), None, PAYOUT)) is None
