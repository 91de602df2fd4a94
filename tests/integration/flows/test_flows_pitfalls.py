"""The fifteen ways in which integrators get Lido wrong, each made to happen, and what is done here instead."""

from collections.abc import Callable
from typing import Any

import pytest

from apps.common.errors import ServiceError
from apps.common.wei import ETHER
from apps.ethereum.contracts import QUEUE
from apps.ethereum.jsonrpc import read_error
from apps.protocols.calls import revert_reason
from tests.support.flows import Flows
from tests.support.lido import Desk, signatures
from tests.support.protocols import POOL, House, make_house
from tests.support.raw import raw


@pytest.fixture
def house(desk: Desk, make_database: Callable[[str], str]) -> House:
    """Protocols alone, for what needs no books."""
    return make_house(desk, make_database("protocols"))


def test_pitfall_01__total_pooled_ether_as_reward__wrong_in_size_and_sign__shares_are_used(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 100 * ETHER)
    flows.ask("unstake", "ann", 40 * ETHER)
    flows.settle()
    desk.oracle.stranger_submit(5_000 * ETHER)
    before = int(raw(flows.context.rewards).pool(POOL)["accrued_wei"])
    held = desk.steth(desk.operator)
    report = desk.oracle.rebase(30 * ETHER, finalize_up_to=1)
    gained = desk.steth(desk.operator) - held
    flows.settle()
    assert report.post_total_ether_wei < report.pre_total_ether_wei  # the total fell
    assert int(raw(flows.context.rewards).pool(POOL)["accrued_wei"]) - before == gained > 0
    assert flows.drifts() == {}


def test_pitfall_02__submits_return_value__is_shares_and_in_no_receipt__read_from_the_log(house: House) -> None:
    desk = house.desk
    receipt = desk.send(house.build("submit", amount_wei=str(5 * ETHER)))
    tx_hash = "0x" + bytes(receipt["transactionHash"]).hex()
    (submitted,) = house.get(f"/v1/lido/receipts/{tx_hash}")["submitted"]
    (item,) = house.history()
    assert submitted["shares"] == item["shares"] == str(desk.shares(desk.operator))
    assert submitted["amount_wei"] == item["amount_wei"] == str(5 * ETHER) != submitted["shares"]


def test_pitfall_03__exact_amounts__off_by_a_wei_or_two__principal_as_sent_and_dust_bounded(flows: Flows) -> None:
    for number in range(4):
        flows.stake("ann", ETHER + number)
    assert flows.balance("ann")["staked_wei"] == str(4 * ETHER + 6)
    dust = 4 * ETHER + 6 - flows.desk.steth(flows.desk.operator)
    assert flows.drifts() == {}
    assert 0 < dust <= 2 * 4
    assert raw(flows.ledger).totals(POOL)["system"]["@rounding"] == str(-dust)


def test_pitfall_04__splitting__no_rest_below_the_minimum_and_no_empty_element(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 5_000 * ETHER)
    desk.approve(desk.operator, 5_000 * ETHER)
    for rest in (0, 1, 99, 100):
        amount = 1_000 * ETHER + rest
        built = house.build("request-withdrawals", items=[{"reference": "a", "amount_wei": str(amount)}])
        faces = [event["amountOfStETH"] for event in desk.events("WithdrawalRequested", desk.send(built))]
        assert sum(faces) == amount
        assert len(faces) == (1 if rest == 0 else 2)


def test_pitfall_05__request_ids__others_race_in_the_same_block__taken_from_our_receipt(house: House) -> None:
    desk = house.desk
    stranger = desk.deployment.stranger
    desk.submit(desk.operator, 10 * ETHER)
    desk.approve(desk.operator, 10 * ETHER)
    desk.approve(stranger, 10 * ETHER)
    ask = desk.queue.requestWithdrawals
    _, ours, _ = desk.in_one_block(
        (ask([ETHER], stranger), stranger, 0),
        (ask([ETHER, 2 * ETHER], desk.operator), desk.operator, 0),
        (ask([ETHER], stranger), stranger, 0),
    )
    found = house.get("/v1/lido/receipts/0x" + bytes(ours["transactionHash"]).hex())
    assert [item["withdrawal_id"] for item in found["withdrawal_requests"]] == [2, 3]
    assert desk.queue.getLastRequestId().call() == 4


def test_pitfall_06__hints__revert_on_unsorted_or_unfinalized_ids__never_asked_for_those(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    ids = desk.request(desk.operator, [ETHER] * 4)
    desk.oracle.finalize(ids[1])
    hints = desk.queue.findCheckpointHints
    assert desk.refusal(hints([ids[1], ids[2], ids[3]], 1, 1), desk.user) == "InvalidRequestIdRange(0, 1)"
    assert desk.refusal(hints([ids[1], ids[0]], 1, 1), desk.user) == "RequestIdsNotSorted()"
    items = house.post("/v1/lido/withdrawals/status", {"ids": [ids[3], ids[1], ids[2], ids[0]]}).get_json()["items"]
    assert [item["finalized"] for item in items] == [True, True, False, False]
    desk.send(house.build("claim", withdrawal_ids=[ids[1], ids[0]]))


def test_pitfall_07__claim_batches__all_or_nothing__survive_one_claimed_id(flows: Flows) -> None:
    flows.stake("ann", 20 * ETHER)
    asked = [flows.ask("unstake", "ann", wei * ETHER) for wei in (2, 3)]
    flows.settle()
    flows.desk.oracle.finalize()
    assert flows.claims() == 1
    flows.by_hand(flows.desk.queue.claimWithdrawalsTo([1], [1], flows.desk.operator))
    for _ in range(2):  # and again: nothing is claimed twice
        flows.settle()
        flows.claims()
    flows.settle()
    assert [flows.request(made)["status"] for made in asked] == ["completed", "completed"]
    assert flows.drifts() == {}


def test_pitfall_08__face_credited__more_than_was_paid__the_claim_log_is_credited(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 20 * ETHER)
    asked = flows.ask("unstake", "ann", 10 * ETHER)
    flows.settle()
    desk.oracle.rebase(-500 * ETHER, finalize_up_to=1)
    flows.claims()
    flows.settle()
    done = flows.request(asked)
    (claim,) = [sent["message_id"] for sent in done["transactions"] if sent["purpose"] == "claim"]
    message = raw(flows.context.relayer).transaction(claim)
    assert message is not None
    receipt = desk.web3.eth.get_transaction_receipt(message["tx_hash"])
    (paid,) = [event["amountOfETH"] for event in desk.events("WithdrawalClaimed", receipt)]
    assert int(done["settled_wei"]) == paid < 10 * ETHER
    assert flows.balance("ann")["available_wei"] == str(paid)


def test_pitfall_09__requested_amounts__earn_nothing_and_cannot_be_cancelled(flows: Flows) -> None:
    flows.stakes({"leaver": 10 * ETHER, "stayer": 10 * ETHER})
    asked = flows.ask("unstake", "leaver", "max")
    flows.settle()
    held = flows.desk.steth(flows.desk.operator)
    flows.desk.oracle.rebase(90 * ETHER)
    flows.settle()
    gained = flows.desk.steth(flows.desk.operator) - held
    assert flows.position("leaver")["pending_wei"] == "0"
    assert gained - 1 <= int(flows.position("stayer")["pending_wei"]) <= gained + 1
    with pytest.raises(ServiceError) as refusal:
        flows.service.cancel(asked["id"])
    assert refusal.value.code == "not_cancellable"


def test_pitfall_10__nft_ownership__the_operator_owns_and_custody_is_paid_and_a_moved_nft_is_seen(
    flows: Flows,
) -> None:
    desk = flows.desk
    flows.stake("ann", 20 * ETHER)
    flows.ask("unstake", "ann", 5 * ETHER)
    flows.settle()
    assert desk.status(1)[2] == desk.operator
    assert flows.drifts() == {}
    flows.by_hand(desk.queue.transferFrom(desk.operator, desk.user, 1))
    assert flows.drifts() == {"nfts": -5 * ETHER}


def test_pitfall_11__claimed_ether_by_balance__mixes_in_gas_and_deposits__by_log_it_does_not(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 20 * ETHER)
    asked = flows.ask("unstake", "ann", 5 * ETHER)
    flows.settle()
    desk.oracle.finalize()
    before = desk.balance(desk.operator)
    flows.claims()
    flows.deposit("bob", 3 * ETHER)
    flows.settle()
    done = flows.request(asked)
    assert int(done["settled_wei"]) == 5 * ETHER - 1 != desk.balance(desk.operator) - before
    assert flows.drifts() == {}


def test_pitfall_12__stake_limit__somebody_is_quicker__requests_wait_in_their_place(flows: Flows) -> None:
    desk = flows.desk
    desk.oracle.set_stake_limit(100 * ETHER, 0)
    flows.deposit("ann", 60 * ETHER)
    asked = flows.ask("stake", "ann", 60 * ETHER)
    flows.batching()
    flows.batches()  # built within the limit
    desk.oracle.stranger_submit(50 * ETHER)
    for _ in range(4):
        flows.batches()
        flows.pump()
        desk.oracle.mine()  # a simulation that reverts is seen again at a later block before it counts
    found = flows.request(asked)
    assert (found["status"], found["reason"]["code"]) == ("queued", "stake_limit_exceeded")
    assert raw(flows.context.protocols).state()["stake_limit"]["current_wei"] == str(50 * ETHER)
    desk.oracle.set_stake_limit(0, 0)
    assert raw(flows.context.protocols).state()["stake_limit"]["current_wei"] is None
    flows.settle()
    assert flows.request(asked)["status"] == "completed"
    assert flows.drifts() == {}


def test_pitfall_13__four_switches__each_refuses_its_own_by_name_and_claims_stay_open(house: House) -> None:
    desk = house.desk
    desk.submit(desk.operator, 10 * ETHER)
    (number,) = desk.request(desk.operator, [ETHER])
    desk.oracle.finalize()
    desk.approve(desk.operator, ETHER)
    stake: dict[str, Any] = {"amount_wei": "1000"}
    ask = {"items": [{"reference": "a", "amount_wei": "1000"}]}
    expected = {
        "staking_paused": ("staking_paused", None),
        "queue_paused": (None, "queue_paused"),
        "bunker": (None, None),
        "stopped": ("protocol_stopped", "protocol_stopped"),
    }
    switches: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "staking_paused": (desk.oracle.pause_staking, desk.oracle.resume_staking),
        "queue_paused": (desk.oracle.pause_queue, desk.oracle.resume_queue),
        "bunker": (lambda: desk.oracle.set_bunker(active=True), lambda: desk.oracle.set_bunker(active=False)),
        "stopped": (desk.oracle.stop, desk.oracle.resume),
    }
    for name, (off, on) in switches.items():
        off()
        assert house.get("/v1/lido/state")["switches"][name] is True
        for builder, body, code in (
            ("submit", stake, expected[name][0]),
            ("request-withdrawals", ask, expected[name][1]),
        ):
            if code is None:
                house.build(builder, **body)
            else:
                assert house.refusal(builder, **body) == (409, code)
        house.build("claim", withdrawal_ids=[number])
        on()


def test_pitfall_14__reports__late_negative_or_not_at_all__signed_and_without_an_assumption(flows: Flows) -> None:
    desk = flows.desk
    flows.stake("ann", 10 * ETHER)
    asked = flows.ask("unstake", "ann", 2 * ETHER)
    flows.settle()
    for _ in range(3):  # days without a report: nothing is paid, nothing accrues, nothing breaks
        desk.rpc("evm_increaseTime", 86_400)
        desk.oracle.mine()
        assert flows.claims() == 0
        flows.settle()
    assert flows.request(asked)["status"] == "waiting"
    assert flows.position("ann")["pending_wei"] == "0"
    held = desk.steth(desk.operator)
    desk.oracle.rebase(-700 * ETHER)
    desk.oracle.rebase(100 * ETHER)
    change = desk.steth(desk.operator) - held
    flows.settle()
    worth = int(flows.position("ann")["staked_wei"]) + int(flows.position("ann")["pending_wei"])
    assert change < 0
    assert abs(worth - (8 * ETHER + change)) <= 1
    assert flows.drifts() == {}


def test_pitfall_15__reverts__strings_and_custom_errors_alike_by_name(house: House) -> None:
    real = {text.partition("(")[0]: selector[:8] for text, selector in signatures("WithdrawalQueue", "error").items()}
    known = {name: error.selector.hex() for name, error in QUEUE.errors.items()}
    assert {name: real[name] for name in known} == known
    for name, selector in known.items():
        data = f"0x{selector}{7:064x}{9:064x}"
        assert revert_reason(read_error({"code": 3, "message": "execution reverted", "data": data})) == name
        assert revert_reason(read_error({"code": -32000, "message": "VM error", "data": {"data": data}})) == name
    text = b"STAKE_LIMIT".hex()
    word = f"0x08c379a0{32:064x}{11:064x}{text.ljust(64, '0')}"
    assert revert_reason(read_error({"code": 3, "message": "execution reverted", "data": word})) == "STAKE_LIMIT"
    assert revert_reason(read_error({"code": -32000, "message": "execution reverted: STAKE_LIMIT"})) == "STAKE_LIMIT"
    tx_hash = house.desk.oracle.stranger_submit(ETHER)
    assert house.get(f"/v1/lido/receipts/{tx_hash}")["tx_hash"].startswith("0x")
