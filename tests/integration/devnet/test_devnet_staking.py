"""The desk's stETH: share math, events, rebases, the stake limit and the switches, as measured on the real protocol."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from web3.types import RPCEndpoint

from apps.common.wei import ETHER
from apps.devnet.deployment import STAKE_LIMIT_GROWTH_BLOCKS, STAKE_LIMIT_WEI, send
from tests.support.lido import ZERO, Desk

UNLIMITED = 2**256 - 1


def totals(desk: Desk) -> tuple[int, int]:
    """(pooled ether, shares)."""
    return int(desk.lido.getTotalPooledEther().call()), int(desk.lido.getTotalShares().call())


def test_submit__rate_above_one__shares_and_balance_are_floors(desk: Desk) -> None:
    ether, shares = totals(desk)
    desk.submit(desk.user, ETHER)
    minted = ETHER * shares // ether
    assert desk.shares(desk.user) == minted < ETHER
    assert desk.steth(desk.user) == minted * (ether + ETHER) // (shares + minted) == ETHER - 1
    assert totals(desk) == (ether + ETHER, shares + minted)


def test_submit__receipt__exactly_three_logs_in_order(desk: Desk) -> None:
    receipt = desk.submit(desk.user, ETHER)
    assert desk.names(receipt) == ["Submitted", "Transfer", "TransferShares"]
    assert desk.events("Submitted", receipt) == [{"sender": desk.user, "amount": ETHER, "referral": ZERO}]
    assert desk.events("Transfer", receipt)[0] == {"from": ZERO, "to": desk.user, "value": ETHER - 1}
    assert desk.events("TransferShares", receipt)[0]["sharesValue"] == desk.shares(desk.user)


def test_submit__nothing__zero_deposit(desk: Desk) -> None:
    assert desk.refusal(desk.lido.submit(ZERO), desk.user) == "ZERO_DEPOSIT"


def test_plain_ether__to_lido__stakes_and_unknown_calldata_reverts(desk: Desk) -> None:
    # The node takes 21,000 gas for enough where no calldata is given.
    request = {"from": desk.user, "to": desk.deployment.steth, "value": hex(ETHER), "gas": hex(200_000)}
    receipt = desk.web3.eth.wait_for_transaction_receipt(desk.rpc("eth_sendTransaction", request))
    assert receipt["status"] == 1
    assert desk.shares(desk.user) > 0
    answer = desk.web3.provider.make_request(RPCEndpoint("eth_call"), [{**request, "data": "0x12345678"}, "latest"])
    assert "NON_EMPTY_DATA" in str(answer["error"])


def test_transfer__tokens__both_events_and_floored_shares(desk: Desk) -> None:
    desk.submit(desk.user, 10 * ETHER)
    ether, shares = totals(desk)
    receipt = desk.do(desk.lido.transfer(desk.operator, ETHER), desk.user)
    assert desk.names(receipt) == ["Transfer", "TransferShares"]
    assert desk.shares(desk.operator) == ETHER * shares // ether
    assert desk.events("Transfer", receipt)[0]["value"] == ETHER


def test_transfer_shares__exact__moves_all_of_them(desk: Desk) -> None:
    desk.submit(desk.user, ETHER)
    held = desk.shares(desk.user)
    desk.do(desk.lido.transferShares(desk.operator, held), desk.user)
    assert (desk.shares(desk.user), desk.shares(desk.operator)) == (0, held)


def test_transfer__impossible__named(desk: Desk) -> None:
    desk.submit(desk.user, ETHER)
    steth = desk.deployment.steth
    assert desk.refusal(desk.lido.transfer(desk.operator, 2 * ETHER), desk.user) == "BALANCE_EXCEEDED"
    assert desk.refusal(desk.lido.transfer(ZERO, 1), desk.user) == "TRANSFER_TO_ZERO_ADDR"
    assert desk.refusal(desk.lido.transfer(steth, 1), desk.user) == "TRANSFER_TO_STETH_CONTRACT"
    assert desk.refusal(desk.lido.transferFrom(desk.user, desk.custody, 1), desk.operator) == "ALLOWANCE_EXCEEDED"


def test_allowance__infinite__never_decremented_but_finite_is(desk: Desk) -> None:
    desk.submit(desk.user, 4 * ETHER)
    desk.do(desk.lido.approve(desk.operator, UNLIMITED), desk.user)
    desk.do(desk.lido.transferFrom(desk.user, desk.custody, ETHER), desk.operator)
    assert desk.lido.allowance(desk.user, desk.operator).call() == UNLIMITED
    desk.do(desk.lido.approve(desk.operator, 2 * ETHER), desk.user)
    desk.do(desk.lido.transferFrom(desk.user, desk.custody, ETHER), desk.operator)
    assert desk.lido.allowance(desk.user, desk.operator).call() == ETHER


def test_rebase__reward__fee_in_shares_and_no_transfer_for_holders(desk: Desk) -> None:
    desk.submit(desk.user, 100 * ETHER)
    (ether, shares), held, before = totals(desk), desk.shares(desk.user), desk.steth(desk.user)
    report = desk.oracle.rebase(30 * ETHER)
    receipt = desk.web3.eth.get_transaction_receipt(report.tx_hash)  # type: ignore[arg-type]
    event = desk.events("TokenRebased", receipt)[0]
    fee = 3 * ETHER * shares // (ether + 30 * ETHER - 3 * ETHER)
    assert event["sharesMintedAsFees"] == fee
    assert (event["preTotalEther"], event["preTotalShares"]) == (ether, shares)
    assert (event["postTotalEther"], event["postTotalShares"]) == totals(desk) == (ether + 30 * ETHER, shares + fee)
    assert desk.shares(desk.user) == held
    gain = desk.steth(desk.user) - before
    assert gain == held * (ether + 30 * ETHER) // (shares + fee) - held * ether // shares
    assert 0 < gain < held * 30 * ETHER // shares  # ether profit is not holder profit
    assert [log["to"] for log in desk.events("Transfer", receipt)] == [desk.deployment.stranger]


def test_rebase__slashing__everybody_loses_and_no_fee(desk: Desk) -> None:
    desk.submit(desk.user, 100 * ETHER)
    before, (ether, shares) = desk.steth(desk.user), totals(desk)
    report = desk.oracle.rebase(-200 * ETHER)
    assert totals(desk) == (ether - 200 * ETHER, shares)
    assert desk.steth(desk.user) < before
    assert (report.reward_wei, report.post_total_ether_wei) == (-200 * ETHER, ether - 200 * ETHER)


def test_rebase__slashing_beyond_validators__taken_from_the_buffer(desk: Desk) -> None:
    ether, _ = totals(desk)
    buffered = desk.lido.getBufferedEther().call()
    loss = ether - buffered + 5 * ETHER
    desk.oracle.rebase(-loss)
    assert desk.lido.getBufferedEther().call() == buffered - 5 * ETHER == desk.balance(desk.deployment.steth)


def test_rebase__time_elapsed__since_the_report_before(desk: Desk) -> None:
    desk.oracle.rebase(0)
    desk.rpc("evm_increaseTime", 86_400)
    report = desk.oracle.rebase(ETHER)
    event = desk.events("TokenRebased", desk.web3.eth.get_transaction_receipt(report.tx_hash))[0]  # type: ignore[arg-type]
    assert 86_400 <= event["timeElapsed"] < 86_500


def test_report__not_the_owner__refused(desk: Desk) -> None:
    assert desk.refusal(desk.lido.report(1, 0, 0), desk.user) == "APP_AUTH_FAILED"


def test_stake_limit__spent__refused_and_regrown_per_block(desk: Desk) -> None:
    desk.oracle.set_stake_limit(100 * ETHER, 10)
    desk.submit(desk.user, 100 * ETHER)
    # The refusal is evaluated in a block after the submit's, when 10 ETH have grown back.
    assert desk.refusal(desk.lido.submit(ZERO), desk.user, 10 * ETHER + 1) == "STAKE_LIMIT"
    start = desk.lido.getCurrentStakeLimit().call()
    desk.oracle.mine(3)
    assert desk.lido.getCurrentStakeLimit().call() == start + 30 * ETHER
    desk.oracle.mine(20)
    assert desk.lido.getCurrentStakeLimit().call() == 100 * ETHER


def test_stake_limit__shared_with_strangers__their_stake_counts(desk: Desk) -> None:
    desk.oracle.set_stake_limit(100 * ETHER, 0)
    desk.oracle.stranger_submit(70 * ETHER)
    assert desk.refusal(desk.lido.submit(ZERO), desk.user, 30 * ETHER + 1) == "STAKE_LIMIT"
    desk.submit(desk.user, 30 * ETHER)
    assert desk.lido.getCurrentStakeLimit().call() == 0


def test_stake_limit__info__as_set_and_removed(desk: Desk) -> None:
    info = desk.lido.getStakeLimitFullInfo().call()
    assert info[:5] == [False, True, STAKE_LIMIT_WEI, STAKE_LIMIT_WEI, STAKE_LIMIT_GROWTH_BLOCKS]
    desk.oracle.set_stake_limit(0, 0)
    assert desk.lido.getStakeLimitFullInfo().call()[:2] == [False, False]
    assert desk.lido.getCurrentStakeLimit().call() == UNLIMITED


def test_staking_paused__submit_refused__transfers_work(desk: Desk) -> None:
    desk.submit(desk.user, ETHER)
    desk.oracle.pause_staking()
    assert desk.refusal(desk.lido.submit(ZERO), desk.user, 1) == "STAKING_PAUSED"
    assert desk.lido.getCurrentStakeLimit().call() == 0
    desk.do(desk.lido.transfer(desk.operator, 1000), desk.user)
    desk.oracle.rebase(ETHER)
    desk.oracle.resume_staking()
    desk.submit(desk.user, ETHER)


def test_stopped__everything_but_approve_and_claims_refused(desk: Desk) -> None:
    desk.submit(desk.user, ETHER)
    desk.oracle.stop()
    assert desk.lido.isStopped().call() and desk.lido.isStakingPaused().call()
    assert desk.refusal(desk.lido.submit(ZERO), desk.user, 1) == "STAKING_PAUSED"
    assert desk.refusal(desk.lido.transfer(desk.operator, 1000), desk.user) == "CONTRACT_IS_STOPPED"
    assert desk.refusal(desk.lido.report(1, 0, 0), desk.deployment.owner) == "CONTRACT_IS_STOPPED"
    desk.approve(desk.user, ETHER)
    desk.oracle.resume()
    desk.submit(desk.user, ETHER)


@pytest.mark.parametrize("name", ["getSharesByPooledEth", "getPooledEthByShares"])
def test_conversion__at_two_to_the_128__refused(desk: Desk, name: str) -> None:
    reason = {"getSharesByPooledEth": "ETH_TOO_LARGE", "getPooledEthByShares": "SHARES_TOO_LARGE"}[name]
    assert desk.refusal(getattr(desk.lido, name)(2**128), desk.user) == reason
    assert getattr(desk.lido, name)(2**128 - 1).call() > 0


def test_conversion__round_up__one_more_than_the_floor(desk: Desk) -> None:
    floor = desk.lido.getPooledEthByShares(ETHER).call()
    assert desk.lido.getPooledEthBySharesRoundUp(ETHER).call() == floor + 1


def test_send__many_at_once_from_one_account__each_gets_a_nonce_of_its_own(desk: Desk) -> None:
    before = int(desk.rpc("eth_getTransactionCount", desk.user, "latest"), 16)
    request = {"from": desk.user, "to": desk.user, "value": "0x1"}
    with ThreadPoolExecutor(8) as threads:
        receipts = list(threads.map(lambda _: send(desk.web3, request), range(40)))
    assert {receipt["status"] for receipt in receipts} == {1}
    assert int(desk.rpc("eth_getTransactionCount", desk.user, "latest"), 16) == before + 40
