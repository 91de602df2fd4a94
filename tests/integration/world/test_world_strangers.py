"""What anybody can do for the price of gas to the operator's and custody's names on chain: nothing of it stops the books.

One test for each kind of log, by the contracts' own interfaces, in which a stranger can make the operator or custody
stand.
"""

from collections.abc import Callable
from typing import Any

import pytest

from apps.common.wei import ETHER
from apps.devnet.deployment import deploy
from apps.devnet.oracle import Oracle
from tests.support.flows import Flows
from tests.support.lido import ZERO, Desk
from tests.support.protocols import POOL, House, make_house
from tests.support.raw import raw

Move = Callable[[Desk, str], Any]


@pytest.fixture
def house(desk: Desk, make_database: Callable[[str], str]) -> House:
    """Protocols alone, for what needs no books."""
    return make_house(desk, make_database("protocols"))


NOTHING_MOVES: dict[str, Move] = {
    "out of the operator to anybody": lambda desk, stranger: desk.lido.transferFrom(desk.operator, stranger, 0),
    "out of the operator into the queue": lambda desk, _: desk.lido.transferFrom(
        desk.operator, desk.deployment.withdrawal_queue, 0
    ),
    "out of the operator to itself": lambda desk, _: desk.lido.transferFrom(desk.operator, desk.operator, 0),
    "shares out of the operator": lambda desk, stranger: desk.lido.transferSharesFrom(desk.operator, stranger, 0),
    "out of custody to the operator": lambda desk, _: desk.lido.transferFrom(desk.custody, desk.operator, 0),
    "out of a third party into the operator": lambda desk, _: desk.lido.transferFrom(desk.user, desk.operator, 0),
    "a gift worth no share": lambda desk, _: desk.lido.transfer(desk.operator, 1),
    "a gift of no share": lambda desk, _: desk.lido.transferShares(desk.operator, 0),
}


@pytest.mark.parametrize("move", NOTHING_MOVES.values(), ids=NOTHING_MOVES.keys())
def test_transfer__of_nothing_in_the_operators_name__is_no_item_and_the_walk_goes_on(flows: Flows, move: Move) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    flows.stake("ann", 10 * ETHER)
    desk.submit(stranger, ETHER)
    receipt = desk.do(move(desk, stranger), stranger)
    assert receipt["logs"]  # the chain does say it, with the operator's name in it
    flows.stake("bob", 5 * ETHER)
    assert flows.drifts() == {}
    items = raw(flows.context.protocols).history("0:-1")["items"]
    assert [item["kind"] for item in items] == ["submit", "submit"]


def test_transfer_out_of_nobody__in_the_operators_name__is_refused_by_the_chain(desk: Desk) -> None:
    call = desk.lido.transferFrom(ZERO, desk.operator, 0)
    assert desk.refusal(call, desk.deployment.stranger) == "TRANSFER_FROM_ZERO_ADDR"


def test_gifts__by_the_hundred_in_one_block__are_all_the_companys_and_nobody_waits(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    flows.stake("ann", 10 * ETHER)
    desk.submit(stranger, 10 * ETHER)
    desk.rpc("evm_setAutomine", False)
    for number in range(150):
        desk.lido.transfer(desk.operator, 10 + number).transact({"from": stranger, "gas": 120_000})
    desk.rpc("evm_mine")
    desk.rpc("evm_setAutomine", True)
    asked = flows.stake("bob", 5 * ETHER)
    assert asked["status"] == "completed"
    gifts = raw(flows.ledger).movements(pool_id=POOL, kind="donation", limit=200)["items"]
    assert sorted(int(gift["amount_wei"]) for gift in gifts) == [10 + number for number in range(150)]
    assert flows.drifts() == {}


def test_gifts__around_our_own_submit_and_a_rebase__keep_their_places(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    desk.submit(stranger, 100 * ETHER)
    flows.deposit("ann", 10 * ETHER)
    desk.do(desk.lido.transfer(desk.operator, 3 * ETHER), stranger)
    asked = flows.ask("stake", "ann", 10 * ETHER)
    flows.batching()
    flows.batches()
    desk.do(desk.lido.transfer(desk.operator, 2 * ETHER), stranger)
    desk.oracle.rebase(50 * ETHER)
    desk.do(desk.lido.transfer(desk.operator, ETHER), stranger)
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    assert flows.drifts() == {}


def test_external_shares__minted_to_the_operators_name__are_a_gift_and_no_submit(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 10 * ETHER)
    desk.do(desk.lido.mintExternalShares(desk.operator, 2 * ETHER), desk.deployment.owner)
    flows.stake("bob", 5 * ETHER)
    assert [item["kind"] for item in raw(flows.context.protocols).history("0:-1")["items"]] == [
        "submit",
        "foreign_in",
        "submit",
    ]
    assert flows.drifts() == {}


def test_submit__of_too_little_for_a_share__is_confirmed_all_the_same(flows: Flows) -> None:
    asked = flows.stake("ann", 1)
    assert asked["status"] == "completed"
    (item,) = raw(flows.context.protocols).history("0:-1")["items"]
    assert (item["kind"], item["shares"], item["amount_wei"]) == ("submit", "0", "1")
    assert flows.drifts() == {}


def test_withdrawals__asked_for_or_sent_to_the_operators_name__are_not_ours(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    flows.stake("ann", 20 * ETHER)
    desk.submit(stranger, 20 * ETHER)
    desk.approve(stranger, 20 * ETHER)
    desk.do(desk.queue.requestWithdrawals([ETHER, 2 * ETHER], desk.operator), stranger)
    (sent,) = desk.request(stranger, [3 * ETHER])
    desk.do(desk.queue.transferFrom(stranger, desk.operator, sent), stranger)
    asked = flows.ask("unstake", "ann", 5 * ETHER)
    flows.settle()
    desk.oracle.finalize()
    flows.claims()
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    assert [desk.status(number)[5] for number in (1, 2, sent)] == [False, False, False]  # none was claimed
    assert flows.drifts() == {}


def test_claims__of_others_paid_to_custody__are_unidentified_ether_and_no_claim_of_ours(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    flows.stake("ann", 20 * ETHER)
    desk.submit(stranger, 20 * ETHER)
    (number,) = desk.request(stranger, [3 * ETHER])
    desk.oracle.finalize()
    paid = desk.balance(desk.operator)
    desk.claim(stranger, [number], desk.operator)
    paid = desk.balance(desk.operator) - paid
    flows.stake("bob", ETHER)
    assert flows.drifts() == {"unidentified": paid}


def test_approvals__with_the_operators_name__change_nothing(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    desk.submit(stranger, 5 * ETHER)
    (number,) = desk.request(stranger, [ETHER])
    desk.do(desk.lido.approve(desk.operator, 7), stranger)
    desk.do(desk.queue.approve(desk.operator, number), stranger)
    desk.do(desk.queue.setApprovalForAll(desk.operator, True), stranger)
    flows.stake("ann", ETHER)
    assert flows.drifts() == {}


def test_look_alikes__another_contracts_events_with_our_names__are_not_read(flows: Flows) -> None:
    desk = flows.desk
    stranger = desk.deployment.stranger
    flows.stake("ann", 10 * ETHER)
    theirs = Oracle(desk.rpc_url, deploy(desk.rpc_url))
    other = theirs.lido.functions
    desk.do(other.submit(ZERO), stranger, 9 * ETHER)
    desk.do(other.transfer(desk.operator, 4 * ETHER), stranger)
    desk.do(other.transferFrom(desk.operator, stranger, 0), stranger)
    theirs.rebase(30 * ETHER)
    flows.stake("bob", 5 * ETHER)
    assert [item["kind"] for item in raw(flows.context.protocols).history("0:-1")["items"]] == ["submit", "submit"]
    assert flows.position("ann")["pending_wei"] == "0"
    assert flows.drifts() == {}


def test_receipt__of_a_strangers_transaction_with_our_name_in_it__shows_nothing_of_ours(house: House) -> None:
    desk = house.desk
    stranger = desk.deployment.stranger
    desk.submit(stranger, 5 * ETHER)
    desk.approve(stranger, 5 * ETHER)
    sent = [
        desk.do(desk.queue.requestWithdrawals([ETHER], desk.operator), stranger),
        desk.do(desk.lido.mintExternalShares(desk.operator, ETHER), desk.deployment.owner),
    ]
    for receipt in sent:
        found = house.get("/v1/lido/receipts/0x" + bytes(receipt["transactionHash"]).hex())
        assert (found["submitted"], found["withdrawal_requests"], found["withdrawal_claims"]) == ([], [], [])
