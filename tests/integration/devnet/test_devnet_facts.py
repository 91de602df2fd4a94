"""What was measured on the real contracts, measured on the desk's: one test a fact, with the fact's own numbers."""

from collections.abc import Callable
from typing import Any

import pytest
from eth_account import Account

from apps.common.wei import ETHER
from tests.support.lido import ZERO, Desk, signatures
from tests.support.relayer import OPERATOR_KEY

RATE = 10**27

FUNCTIONS = {
    "Lido": {
        "submit(address)": "a1903eab",
        "transferShares(address,uint256)": "8fcb4e5b",
        "transferSharesFrom(address,address,uint256)": "6d780459",
        "sharesOf(address)": "f5eb42dc",
        "getTotalShares()": "d5002f2e",
        "getTotalPooledEther()": "37cfdaca",
        "getSharesByPooledEth(uint256)": "19208451",
        "getPooledEthByShares(uint256)": "7a28fb88",
        "getPooledEthBySharesRoundUp(uint256)": "0103349c",
        "getCurrentStakeLimit()": "609c4c6c",
        "getStakeLimitFullInfo()": "665b4b0b",
        "isStakingPaused()": "1ea7ca89",
        "isStopped()": "3f683b6a",
    },
    "WithdrawalQueue": {
        "requestWithdrawals(uint256[],address)": "d6681042",
        "requestWithdrawalsWithPermit(uint256[],address,(uint256,uint256,uint8,bytes32,bytes32))": "acf41e4d",
        "getWithdrawalRequests(address)": "7d031b65",
        "getWithdrawalStatus(uint256[])": "b8c4b85a",
        "getClaimableEther(uint256[],uint256[])": "c97912d8",
        "findCheckpointHints(uint256[],uint256,uint256)": "62abe3fa",
        "getLastCheckpointIndex()": "526eae3e",
        "getLastRequestId()": "19c2b4c3",
        "getLastFinalizedRequestId()": "4f069a13",
        "unfinalizedStETH()": "d0fb84e8",
        "unfinalizedRequestNumber()": "c2fc7aff",
        "claimWithdrawal(uint256)": "f8444436",
        "claimWithdrawals(uint256[],uint256[])": "e3afe0a3",
        "claimWithdrawalsTo(uint256[],uint256[],address)": "5e7eead9",
        "isPaused()": "b187bd26",
        "isBunkerModeActive()": "2b95b781",
    },
}
TOPICS = {
    "Submitted": "96a25c8c",
    "TransferShares": "9d9c9092",
    "TokenRebased": "ff08c3ef606d198e316ef5b822193c489965899eb4e3c248cea1a4626c3eda50",
    "WithdrawalRequested": "f0cb471f23fb74ea44b8252eb1881a2dca546288d9f6e90d1a0e82fe0ed342ab",
    "WithdrawalsFinalized": "197874c72af6a06fb0aa4fab45fd39c7cb61ac0992159872dc3295207da7e9eb",
    "WithdrawalClaimed": "6ad26c5e238e7d002799f9a5db07e81ef14e37386ae03496d7a7ef04713e145b",
}
ERRORS = {
    "RequestAmountTooSmall(uint256)": "b89b87c8",
    "RequestAmountTooLarge(uint256)": "8ebfb78d",
    "ResumedExpected()": "14378398",
    "RequestNotFoundOrNotFinalized(uint256)": "4ae50228",
    "RequestAlreadyClaimed(uint256)": "f0e0cc2d",
    "NotOwner(address,address)": "23295f0e",
    "InvalidRequestId(uint256)": "c969e0f2",
    "InvalidRequestIdRange(uint256,uint256)": "71894257",
    "RequestIdsNotSorted()": "374e8bd1",
    "InvalidHint(uint256)": "cee778e2",
    "ArraysLengthMismatch(uint256,uint256)": "4c59bf28",
    "ZeroRecipient()": "d27b4443",
    "CantSendValueRecipientMayHaveReverted()": "0f0b498d",
    "NotEnoughEther()": "8a0d3779",
}


@pytest.mark.parametrize("contract", ["Lido", "WithdrawalQueue"])
def test_fact_selectors__functions__those_of_the_real_contracts(contract: str) -> None:
    there = signatures(contract, "function")
    assert {text: there.get(text, "")[:8] for text in FUNCTIONS[contract]} == FUNCTIONS[contract]


def test_fact_selectors__events_and_errors__those_of_the_real_contracts() -> None:
    events = {**signatures("WithdrawalQueue", "event"), **signatures("Lido", "event")}
    topics = {text.partition("(")[0]: topic for text, topic in events.items()}
    assert {name: topics[name][: len(topic)] for name, topic in TOPICS.items()} == TOPICS
    errors = signatures("WithdrawalQueue", "error")
    assert {text: errors.get(text, "")[:8] for text in ERRORS} == ERRORS


def test_fact_one_ether_submitted__balance_one_wei_short(desk: Desk) -> None:
    receipt = desk.submit(desk.user, ETHER)
    assert desk.events("Transfer", receipt)[0]["value"] == desk.steth(desk.user) == ETHER - 1


def test_fact_whole_balance_requested__one_share_left_behind(desk: Desk) -> None:
    desk.submit(desk.user, ETHER)
    desk.request(desk.user, [desk.steth(desk.user)])
    assert desk.shares(desk.user) == 1


def test_fact_permit__domain_and_signature__as_on_the_real_token(desk: Desk) -> None:
    steth, queue = desk.deployment.steth, desk.deployment.withdrawal_queue
    assert desk.lido.eip712Domain().call() == ["Liquid staked Ether 2.0", "2", 31337, steth]
    desk.submit(desk.operator, 3 * ETHER)
    deadline = 2**40
    message = {"owner": desk.operator, "spender": queue, "value": 2 * ETHER, "nonce": 0, "deadline": deadline}
    kinds = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256", "deadline": "uint256"}
    signed: Any = Account.sign_typed_data(
        OPERATOR_KEY,
        {"name": "Liquid staked Ether 2.0", "version": "2", "chainId": 31337, "verifyingContract": steth},
        {"Permit": [{"name": name, "type": kind} for name, kind in kinds.items()]},
        message,
    )
    words = (signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"))
    permit: Any = desk.lido.permit(desk.operator, queue, 2 * ETHER, deadline, *words)
    late = desk.lido.permit(desk.operator, queue, 2 * ETHER, 1, *words)
    other = desk.lido.permit(desk.operator, queue, 3 * ETHER, deadline, *words)
    assert desk.refusal(late, desk.user) == "DEADLINE_EXPIRED"
    assert desk.refusal(other, desk.user) == "INVALID_SIGNATURE"
    request = desk.queue.requestWithdrawalsWithPermit([ETHER], desk.operator, (2 * ETHER, deadline, *words))
    desk.do(request, desk.operator)
    assert desk.lido.allowance(desk.operator, queue).call() == ETHER
    assert desk.refusal(permit, desk.user) == "INVALID_SIGNATURE"  # a nonce is used once


# state: (submit, request, report finalizes); claims and approvals always work
MATRIX = {
    "none": (None, None, True),
    "staking_paused": ("STAKING_PAUSED", None, True),
    "queue_paused": (None, "ResumedExpected()", False),
    "stopped": ("STAKING_PAUSED", "CONTRACT_IS_STOPPED", None),
    "bunker": (None, None, True),
}


@pytest.mark.parametrize("state", MATRIX)
def test_fact_pause_matrix__each_switch__stops_its_own_and_claims_never(desk: Desk, state: str) -> None:
    submit, request, finalizes = MATRIX[state]
    desk.submit(desk.operator, 10 * ETHER)
    first, second = desk.request(desk.operator, [ETHER, ETHER])
    desk.oracle.finalize(first)
    switches: dict[str, Callable[[], None]] = {
        "none": lambda: None,
        "staking_paused": desk.oracle.pause_staking,
        "queue_paused": desk.oracle.pause_queue,
        "stopped": desk.oracle.stop,
        "bunker": lambda: desk.oracle.set_bunker(active=True),
    }
    switches[state]()
    desk.approve(desk.operator, 5 * ETHER)
    stake, ask = desk.lido.submit(ZERO), desk.queue.requestWithdrawals([ETHER], desk.operator)
    if submit is None:
        desk.do(stake, desk.operator, ETHER)
    else:
        assert desk.refusal(stake, desk.operator, ETHER) == submit
    if request is None:
        desk.do(ask, desk.operator)
    else:
        assert desk.refusal(ask, desk.operator) == request
    desk.claim(desk.operator, [first], desk.custody)
    if finalizes is None:
        assert desk.refusal(desk.lido.report(0, second, 0), desk.deployment.owner) == "CONTRACT_IS_STOPPED"
    else:
        assert desk.oracle.finalize(second).finalized_up_to == (second if finalizes else first)


def test_fact_stop__pauses_staking_too__and_resume_resumes_it(desk: Desk) -> None:
    desk.oracle.stop()
    assert desk.refusal(desk.lido.resumeStaking(), desk.deployment.owner) == "CONTRACT_IS_STOPPED"
    assert desk.lido.getStakeLimitFullInfo().call()[0] is True
    desk.oracle.resume()
    assert not desk.lido.isStakingPaused().call()


def test_fact_stake_limit__over_a_pause__does_not_grow(desk: Desk) -> None:
    desk.oracle.set_stake_limit(100 * ETHER, 10)
    desk.submit(desk.user, 90 * ETHER)
    desk.oracle.pause_staking()
    desk.oracle.mine(50)
    desk.oracle.resume_staking()
    assert desk.lido.getCurrentStakeLimit().call() == 10 * ETHER


def test_fact_report_without_reward__each_of_four_requests__claimable_a_wei_less(desk: Desk) -> None:
    desk.submit(desk.operator, 100 * ETHER)
    amounts = [ETHER, 2 * ETHER, 3 * ETHER + 1, 5 * ETHER]
    ids = desk.request(desk.operator, amounts)
    desk.oracle.finalize()
    assert desk.queue.getClaimableEther(ids, [1] * 4).call() == [amount - 1 for amount in amounts]


def test_fact_partial_finalization__4_5_6_queued_and_9_5_to_pay__first_two(desk: Desk) -> None:
    desk.submit(desk.operator, 100 * ETHER)
    ids = desk.request(desk.operator, [4 * ETHER, 5 * ETHER, 6 * ETHER])
    report = desk.oracle.finalize_within(9 * ETHER + ETHER // 2)
    assert report.finalized_up_to == ids[1]
    assert [desk.status(number)[4] for number in ids] == [True, True, False]
    assert desk.oracle.finalize_within(6 * ETHER - ETHER // 2).finalized_up_to == ids[1]
    assert desk.oracle.finalize_within(6 * ETHER).finalized_up_to == ids[2]


def test_fact_thirty_ether_reward__naive_estimate__a_ninth_too_much(desk: Desk) -> None:
    desk.submit(desk.user, 10 * ETHER)
    held, shares = desk.shares(desk.user), desk.lido.getTotalShares().call()
    before = desk.steth(desk.user)
    desk.oracle.rebase(30 * ETHER)
    real = desk.steth(desk.user) - before
    naive = held * 30 * ETHER // shares
    # Measured: 2999670036296007 for 2699703032666406. The protocol's tenth is taken in shares.
    assert 0.8999 < real / naive < 0.9001


def test_fact_strangers_stake__total_moves__our_balance_does_not(desk: Desk) -> None:
    desk.submit(desk.user, 10 * ETHER)
    total, held = desk.lido.getTotalPooledEther().call(), desk.steth(desk.user)
    desk.oracle.stranger_submit(5_000 * ETHER)
    assert desk.lido.getTotalPooledEther().call() - total == 5_000 * ETHER
    assert desk.steth(desk.user) - held in {0, 1}  # the floor of their shares is dust for everybody


def test_fact_reward_of_3_in_a_report_that_pays_9__total_falls_by_6(desk: Desk) -> None:
    desk.submit(desk.user, 100 * ETHER)
    (number,) = desk.request(desk.user, [9 * ETHER])
    held = desk.steth(desk.user)
    report = desk.oracle.rebase(3 * ETHER, finalize_up_to=number)
    assert report.post_total_ether_wei - report.pre_total_ether_wei in {-6 * ETHER, -6 * ETHER + 1}
    assert desk.steth(desk.user) > held


def test_fact_slashing_2000__request_pays_exactly_the_rates_ratio(desk: Desk) -> None:
    desk.submit(desk.operator, 10 * ETHER)
    (number,) = desk.request(desk.operator, [2 * ETHER])
    desk.oracle.rebase(-2000 * ETHER)
    ether, shares = desk.lido.getTotalPooledEther().call(), desk.lido.getTotalShares().call()
    desk.oracle.finalize()
    (claimable,) = desk.queue.getClaimableEther([number], [1]).call()
    assert claimable == desk.status(number)[1] * (ether * RATE // shares) // RATE
    assert 1.96 * ETHER < claimable < 1.965 * ETHER  # measured: 1.9619


def test_fact_claim_withdrawals__pays_the_sender__and_claims_pay_the_recipient(desk: Desk) -> None:
    desk.submit(desk.operator, 10 * ETHER)
    first, second = desk.request(desk.operator, [ETHER, ETHER])
    desk.oracle.finalize()
    receipt = desk.do(desk.queue.claimWithdrawals([first], [1]), desk.operator)
    assert desk.events("WithdrawalClaimed", receipt)[0]["receiver"] == desk.operator
    before = desk.balance(desk.custody)
    desk.claim(desk.operator, [second], desk.custody)
    assert desk.balance(desk.custody) - before == ETHER - 1


def test_fact_claim_batch__one_bad_id__reverts_all_of_it(desk: Desk) -> None:
    desk.submit(desk.operator, 10 * ETHER)
    first, second = desk.request(desk.operator, [ETHER, ETHER])
    desk.oracle.finalize(first)
    call = desk.queue.claimWithdrawalsTo([first, second], [1, 1], desk.custody)
    assert desk.refusal(call, desk.operator) == f"RequestNotFoundOrNotFinalized({second})"
    assert not desk.status(first)[5]


def test_fact_strangers__withdraw_beside_us__ids_are_global(desk: Desk) -> None:
    desk.submit(desk.operator, 10 * ETHER)
    theirs = desk.oracle.stranger_request(5 * ETHER)
    (ours,) = desk.request(desk.operator, [ETHER])
    assert (theirs, ours, desk.oracle.stranger_request(ETHER)) == (1, 2, 3)


def test_fact_report__events__totals_of_before_and_after_and_the_fee(desk: Desk) -> None:
    report = desk.oracle.rebase(10 * ETHER)
    receipt = desk.web3.eth.get_transaction_receipt(report.tx_hash)  # type: ignore[arg-type]
    assert desk.names(receipt)[-3:] == ["ETHDistributed", "TokenRebased", "InternalShareRateUpdated"]
    rebased, updated = desk.events("TokenRebased", receipt)[0], desk.events("InternalShareRateUpdated", receipt)[0]
    assert rebased["postTotalShares"] == updated["postInternalShares"] == desk.lido.getTotalShares().call()
    assert rebased["postTotalEther"] == updated["postInternalEther"] == desk.lido.getTotalPooledEther().call()
    assert rebased["postTotalShares"] - rebased["preTotalShares"] == rebased["sharesMintedAsFees"] > 0
