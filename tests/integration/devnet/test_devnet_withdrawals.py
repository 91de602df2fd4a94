"""The desk's withdrawal queue: bounds, NFT ids, finalization, hints, claims and errors, as measured on the real one."""

import pytest

from apps.common.wei import ETHER
from tests.support.lido import ZERO, Desk

RATE = 10**27
MAX_WEI = 1000 * ETHER


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """Operator and user hold stETH already."""
    desk.submit(desk.operator, 3000 * ETHER)
    desk.submit(desk.user, 100 * ETHER)
    return desk


def test_request__amounts_at_the_bounds__taken_and_beyond_refused(desk: Desk) -> None:
    assert desk.request(desk.operator, [100, MAX_WEI]) == [1, 2]
    desk.approve(desk.operator, 2 * MAX_WEI)
    for amounts, reason in (
        ([99], "RequestAmountTooSmall(99)"),
        ([ETHER, 0], "RequestAmountTooSmall(0)"),
        ([MAX_WEI + 1], f"RequestAmountTooLarge({MAX_WEI + 1})"),
    ):
        assert desk.refusal(desk.queue.requestWithdrawals(amounts, desk.operator), desk.operator) == reason


def test_request__elements__one_nft_each_with_consecutive_ids(desk: Desk) -> None:
    desk.request(desk.user, [ETHER])
    desk.approve(desk.operator, 6 * ETHER)
    amounts = [ETHER, 2 * ETHER, 3 * ETHER]
    receipt = desk.do(desk.queue.requestWithdrawals(amounts, desk.operator), desk.operator)
    events = desk.events("WithdrawalRequested", receipt)
    assert [event["requestId"] for event in events] == [2, 3, 4]
    assert [event["amountOfStETH"] for event in events] == amounts
    assert {(event["requestor"], event["owner"]) for event in events} == {(desk.operator, desk.operator)}
    assert desk.names(receipt) == ["Approval", "Transfer", "TransferShares", "WithdrawalRequested", "Transfer"] * 3
    assert desk.queue.getWithdrawalRequests(desk.operator).call() == [2, 3, 4]
    assert desk.queue.unfinalizedStETH().call() == 7 * ETHER
    assert desk.queue.unfinalizedRequestNumber().call() == 4


def test_request__shares__floor_of_the_amount_and_stop_earning(desk: Desk) -> None:
    held = desk.shares(desk.operator)
    shares = desk.lido.getSharesByPooledEth(ETHER).call()
    (number,) = desk.request(desk.operator, [ETHER])
    assert desk.status(number)[:3] == (ETHER, shares, desk.operator)
    assert desk.shares(desk.operator) == held - shares
    assert desk.shares(desk.deployment.withdrawal_queue) == shares
    desk.oracle.rebase(1000 * ETHER, finalize_up_to=number)
    before = desk.balance(desk.custody)
    desk.claim(desk.operator, [number], desk.custody)
    assert desk.balance(desk.custody) - before <= ETHER


def test_request__whole_balance__leaves_at_most_a_share_behind(desk: Desk) -> None:
    desk.request(desk.user, [desk.steth(desk.user)])
    assert desk.shares(desk.user) in {0, 1}


def test_request__zero_owner__the_sender_owns(desk: Desk) -> None:
    desk.approve(desk.operator, ETHER)
    desk.do(desk.queue.requestWithdrawals([ETHER], ZERO), desk.operator)
    assert desk.queue.ownerOf(1).call() == desk.operator


def test_request__allowance_or_balance_short__steth_strings_bubble_up(desk: Desk) -> None:
    desk.approve(desk.user, 0)
    assert desk.refusal(desk.queue.requestWithdrawals([ETHER], desk.user), desk.user) == "ALLOWANCE_EXCEEDED"
    desk.approve(desk.user, 1000 * ETHER)
    assert desk.refusal(desk.queue.requestWithdrawals([101 * ETHER], desk.user), desk.user) == "BALANCE_EXCEEDED"


def test_queue_paused__requests_and_finalization_stop_but_claims_go_on(desk: Desk) -> None:
    first, second = desk.request(desk.operator, [ETHER, ETHER])
    desk.oracle.finalize(first)
    desk.oracle.pause_queue()
    desk.approve(desk.operator, ETHER)
    assert desk.queue.isPaused().call()
    assert desk.refusal(desk.queue.requestWithdrawals([ETHER], desk.operator), desk.operator) == "ResumedExpected()"
    assert desk.oracle.finalize(second).finalized_up_to == first
    desk.claim(desk.operator, [first], desk.custody)
    desk.oracle.resume_queue()
    assert desk.oracle.finalize(second).finalized_up_to == second


def test_stopped__requests_refused_but_claims_go_on(desk: Desk) -> None:
    (first,) = desk.request(desk.operator, [ETHER])
    desk.oracle.finalize(first)
    desk.approve(desk.operator, ETHER)
    desk.oracle.stop()
    assert desk.refusal(desk.queue.requestWithdrawals([ETHER], desk.operator), desk.operator) == "CONTRACT_IS_STOPPED"
    desk.claim(desk.operator, [first], desk.custody)


def test_bunker__shown__requests_still_taken(desk: Desk) -> None:
    assert not desk.queue.isBunkerModeActive().call()
    assert desk.queue.bunkerModeSinceTimestamp().call() == 2**256 - 1
    desk.oracle.set_bunker(active=True)
    assert desk.queue.isBunkerModeActive().call()
    assert desk.request(desk.operator, [ETHER]) == [1]
    desk.oracle.set_bunker(active=False)
    assert not desk.queue.isBunkerModeActive().call()


def test_switches_of_the_queue__stranger__refused(desk: Desk) -> None:
    for call in (
        desk.queue.pauseFor(1),
        desk.queue.resume(),
        desk.queue.setBunkerMode(True),
        desk.queue.finalize(1, 1),
    ):
        assert desk.refusal(call, desk.user) == "OnlyProtocol()"


def test_finalize__range__inclusive_event_and_first_in_first_out(desk: Desk) -> None:
    ids = desk.request(desk.operator, [4 * ETHER, 5 * ETHER, 6 * ETHER])
    pooled = desk.lido.getTotalPooledEther().call()
    report = desk.oracle.finalize(ids[1])
    receipt = desk.web3.eth.get_transaction_receipt(report.tx_hash)  # type: ignore[arg-type]
    event = desk.events("WithdrawalsFinalized", receipt)[0]
    assert (event["from"], event["to"]) == (1, 2)
    assert event["sharesToBurn"] == sum(desk.status(number)[1] for number in ids[:2])
    assert event["amountOfETHLocked"] == desk.queue.getLockedEtherAmount().call()
    assert desk.lido.getTotalPooledEther().call() == pooled - event["amountOfETHLocked"]
    assert [desk.status(number)[4] for number in ids] == [True, True, False]
    assert desk.shares(desk.deployment.withdrawal_queue) == desk.status(ids[2])[1]


def test_finalize__no_slashing__pays_face_or_a_wei_less(desk: Desk) -> None:
    (number,) = desk.request(desk.operator, [ETHER])
    desk.oracle.finalize()
    before = desk.balance(desk.custody)
    receipt = desk.claim(desk.operator, [number], desk.custody)
    paid = desk.balance(desk.custody) - before
    assert ETHER - paid in {0, 1}
    assert desk.events("WithdrawalClaimed", receipt) == [
        {"requestId": number, "owner": desk.operator, "receiver": desk.custody, "amountOfETH": paid}
    ]


def test_finalize__after_a_slashing__pays_the_share_rate(desk: Desk) -> None:
    (number,) = desk.request(desk.operator, [2 * ETHER])
    desk.oracle.rebase(-2000 * ETHER)
    rate = desk.lido.getTotalPooledEther().call() * RATE // desk.lido.getTotalShares().call()
    desk.oracle.finalize()
    (paid,) = desk.queue.getClaimableEther([number], [1]).call()
    assert paid == desk.status(number)[1] * rate // RATE < 2 * ETHER * 99 // 100
    before = desk.balance(desk.custody)
    desk.claim(desk.operator, [number], desk.custody)
    assert desk.balance(desk.custody) == before + paid


def test_finalize__slashing_and_finalization_in_one_report__the_rate_after_it(desk: Desk) -> None:
    (number,) = desk.request(desk.operator, [2 * ETHER])
    shares = desk.lido.getTotalShares().call()
    ether = desk.lido.getTotalPooledEther().call() - 2000 * ETHER
    desk.oracle.rebase(-2000 * ETHER, finalize_up_to=number)
    (paid,) = desk.queue.getClaimableEther([number], [1]).call()
    assert paid == desk.status(number)[1] * (ether * RATE // shares) // RATE


def test_hints__unfinalized_last__zero_but_before_another_reverts(desk: Desk) -> None:
    ids = desk.request(desk.operator, [ETHER] * 4)
    assert desk.queue.findCheckpointHints([1], 1, 0).call() == [0]
    desk.oracle.finalize(1)
    desk.oracle.finalize(2)
    hints = desk.queue.findCheckpointHints
    assert hints([1, 2], 1, 2).call() == [1, 2]
    assert hints([1, 2, 3], 1, 2).call() == [1, 2, 0]
    assert desk.refusal(hints([2, *ids[2:]], 1, 2), desk.user) == "InvalidRequestIdRange(0, 2)"
    assert desk.refusal(hints([2, 1], 1, 2), desk.user) == "RequestIdsNotSorted()"
    assert desk.refusal(hints([1], 1, 3), desk.user) == "InvalidRequestIdRange(1, 3)"


def test_hints__many_checkpoints__each_id_its_own(desk: Desk) -> None:
    ids = desk.request(desk.operator, [ETHER] * 9)
    for last in (1, 4, 5, 9):
        desk.oracle.finalize(last)
    assert desk.queue.findCheckpointHints(ids, 1, 4).call() == [1, 2, 2, 2, 3, 4, 4, 4, 4]
    desk.claim(desk.operator, ids, desk.custody)
    assert desk.queue.getLockedEtherAmount().call() == 0


def test_claim__errors__as_on_the_real_queue(desk: Desk) -> None:
    first, second = desk.request(desk.operator, [ETHER, ETHER])
    desk.oracle.finalize(first)
    claim = desk.queue.claimWithdrawalsTo
    sender = desk.operator
    assert desk.refusal(claim([second], [1], desk.custody), sender) == f"RequestNotFoundOrNotFinalized({second})"
    assert desk.refusal(claim([first], [1], desk.custody), desk.user) == f"NotOwner({_low(desk.user)}, {_low(sender)})"
    assert desk.refusal(claim([first], [0], desk.custody), sender) == "InvalidHint(0)"
    assert desk.refusal(claim([first], [], desk.custody), sender) == "ArraysLengthMismatch(1, 0)"
    assert desk.refusal(claim([first], [1], ZERO), sender) == "ZeroRecipient()"
    assert desk.refusal(claim([0], [1], desk.custody), sender) == "InvalidRequestId(0)"
    closed = desk.deployment.withdrawal_queue  # takes no plain ETH
    assert desk.refusal(claim([first], [1], closed), sender) == "CantSendValueRecipientMayHaveReverted()"
    desk.do(desk.queue.claimWithdrawal(first), sender)
    assert desk.refusal(claim([first], [1], desk.custody), sender) == f"RequestAlreadyClaimed({first})"


def test_claim__afterwards__status_stays_and_the_list_swaps(desk: Desk) -> None:
    ids = desk.request(desk.operator, [ETHER] * 9)
    desk.oracle.finalize()
    desk.claim(desk.operator, [ids[0]], desk.custody)
    assert desk.queue.getWithdrawalRequests(desk.operator).call() == [9, 2, 3, 4, 5, 6, 7, 8]
    assert desk.status(ids[0])[2:] == (desk.operator, desk.status(ids[0])[3], True, True)
    assert desk.queue.getClaimableEther([1], [1]).call() == [0]
    assert desk.refusal(desk.queue.ownerOf(1), desk.user) == "RequestAlreadyClaimed(1)"


def test_nft__moved__the_new_owner_claims_and_an_approved_one_may_not(desk: Desk) -> None:
    (number,) = desk.request(desk.operator, [ETHER])
    desk.oracle.finalize()
    desk.do(desk.queue.setApprovalForAll(desk.user, True), desk.operator)
    claim = desk.queue.claimWithdrawalsTo([number], [1], desk.user)
    assert desk.refusal(claim, desk.user).startswith("NotOwner(")
    desk.do(desk.queue.transferFrom(desk.operator, desk.user, number), desk.user)
    assert desk.queue.ownerOf(number).call() == desk.user
    assert desk.refusal(claim, desk.operator).startswith("NotOwner(")
    desk.claim(desk.user, [number], desk.user)


def test_status__unknown_id__refused(desk: Desk) -> None:
    assert desk.refusal(desk.queue.getWithdrawalStatus([1]), desk.user) == "InvalidRequestId(1)"
    assert desk.refusal(desk.queue.getWithdrawalStatus([0]), desk.user) == "InvalidRequestId(0)"


def _low(address: str) -> str:
    return address.lower()
