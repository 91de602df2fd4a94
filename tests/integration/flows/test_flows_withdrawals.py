"""Unstakes and claims through all services: slashings with their numbers, short stETH, bad ids, partial finalization."""

from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.pool.models import Withdrawal
from tests.support.flows import Flows
from tests.support.protocols import POOL
from tests.support.raw import raw


def available(flows: Flows, user: str) -> int:
    return int(flows.balance(user)["available_wei"])


def finalize_and_claim(flows: Flows) -> None:
    flows.desk.oracle.finalize()
    flows.claims()
    flows.settle()


def test_unstake__asked_for_just_before_a_slashing__bears_it_like_those_who_stay(flows: Flows) -> None:
    desk = flows.desk
    flows.stakes({"leaver": 40 * ETHER, "stayer": 60 * ETHER})
    asked = flows.ask("unstake", "leaver", 40 * ETHER)
    before = desk.steth(desk.operator)
    desk.oracle.rebase(-1_000 * ETHER)
    lost = before - desk.steth(desk.operator)
    assert 9 * ETHER // 10 < lost < ETHER  # about 0.97 % of 100 ETH
    flows.settle()
    leaver, stayer = flows.request(asked), flows.position("stayer")
    # 40 : 60 of the loss, each rounded by less than a wei.
    assert abs((40 * ETHER - int(leaver["amount_wei"])) - lost * 40 // 100) <= 1
    assert abs((60 * ETHER - int(stayer["staked_wei"])) - lost * 60 // 100) <= 1
    finalize_and_claim(flows)
    done = flows.request(asked)
    assert done["status"] == "completed"
    assert int(leaver["amount_wei"]) - int(done["settled_wei"]) in {0, 1}
    assert flows.drifts() == {}


def test_unstake__slashed_while_in_the_queue__shortfall_is_the_leavers_alone(flows: Flows) -> None:
    desk = flows.desk
    flows.stakes({"leaver": 40 * ETHER, "stayer": 60 * ETHER})
    asked = flows.ask("unstake", "leaver", 40 * ETHER)
    flows.settle()
    waiting = flows.request(asked)
    (nft,) = waiting["withdrawals"]
    assert (waiting["status"], nft["amount_wei"]) == ("waiting", str(40 * ETHER))
    before = desk.steth(desk.operator)
    desk.oracle.rebase(-1_000 * ETHER)
    lost = before - desk.steth(desk.operator)
    flows.settle()
    # The stayer bears what the operator's own stETH lost; the leaver what the queue pays less than the face.
    assert abs((60 * ETHER - int(flows.position("stayer")["staked_wei"])) - lost) <= 1
    finalize_and_claim(flows)
    done = flows.request(asked)
    ether, shares = desk.lido.getTotalPooledEther().call(), desk.lido.getTotalShares().call()
    owed = desk.status(nft["withdrawal_id"])[1] * ether // shares
    paid = int(done["settled_wei"])
    assert abs(paid - owed) <= 2
    assert paid < 40 * ETHER * 995 // 1000
    assert (available(flows, "leaver"), done["withdrawals"][0]["paid_wei"]) == (paid, str(paid))
    moved = {item["kind"]: int(item["amount_wei"]) for item in raw(flows.ledger).movements(user_id="leaver")["items"]}
    assert (moved["unstake_settle"], moved["unstake_shortfall"]) == (paid, 40 * ETHER - paid)
    assert flows.drifts() == {}


def test_unstake__everybody_out__few_wei_short_are_cut_and_nobody_is_stuck(flows: Flows) -> None:
    flows.stakes({user: 10 * ETHER + 333 * number + 1 for number, user in enumerate(("ann", "bob", "cat"))})
    short = sum(int(flows.position(user)["staked_wei"]) for user in ("ann", "bob", "cat")) - flows.desk.steth(
        flows.desk.operator
    )
    assert 0 < short <= 6
    asked = [flows.ask("unstake", user, "max") for user in ("ann", "bob", "cat")]
    flows.settle()
    assert {flows.request(made)["status"] for made in asked} == {"waiting"}
    cuts = raw(flows.ledger).movements(kind="unstake_cut", pool_id=POOL)["items"]
    assert [int(item["amount_wei"]) for item in cuts] == [short]
    assert flows.drifts() == {}
    finalize_and_claim(flows)
    assert {flows.request(made)["status"] for made in asked} == {"completed"}
    assert 0 <= int(raw(flows.ledger).totals(POOL)["system"]["@rounding"]) <= 10
    assert flows.drifts() == {}


def test_unstake__all_of_a_hundred_wei__short_by_dust_is_staked_again_and_says_why(flows: Flows) -> None:
    """Lido takes no request below 100 wei, and rounding has left the operator 99: the user keeps the stake."""
    flows.stake("tiny", 100)
    assert flows.desk.steth(flows.desk.operator) == 99
    asked = flows.ask("unstake", "tiny", "max")
    flows.settle()
    ended = flows.request(asked)
    assert (ended["status"], ended["reason"]["code"]) == ("failed", "amount_too_small")
    position = flows.position("tiny")
    assert (position["staked_wei"], position["exiting_wei"]) == ("100", "0")
    assert flows.drifts() == {}


def test_finalization__partial__first_is_paid_and_the_rest_waits(flows: Flows) -> None:
    flows.stake("ann", 20 * ETHER)
    asked = [flows.ask("unstake", "ann", wei * ETHER) for wei in (4, 5, 6)]
    flows.settle()
    flows.desk.oracle.finalize_within(9 * ETHER + ETHER // 2)
    assert flows.claims() == 1
    flows.settle()
    assert [flows.request(made)["status"] for made in asked] == ["completed", "completed", "waiting"]
    assert flows.claims() == 0
    assert flows.drifts() == {}
    finalize_and_claim(flows)
    assert flows.request(asked[2])["status"] == "completed"


def test_finalization__strangers_before_us__first_in_first_out(flows: Flows) -> None:
    flows.stake("ann", 20 * ETHER)
    flows.desk.oracle.stranger_request(50 * ETHER)
    asked = flows.ask("unstake", "ann", 5 * ETHER)
    flows.settle()
    flows.desk.oracle.finalize_within(50 * ETHER)
    assert flows.claims() == 0
    assert flows.request(asked)["status"] == "waiting"
    finalize_and_claim(flows)
    assert flows.request(asked)["status"] == "completed"


def two_waiting(flows: Flows) -> tuple[dict[str, object], dict[str, object], int, int]:
    """Two finalized unstakes of two users, and their NFTs."""
    flows.stakes({"ann": 20 * ETHER, "bob": 20 * ETHER})
    first, second = flows.ask("unstake", "ann", 5 * ETHER), flows.ask("unstake", "bob", 6 * ETHER)
    flows.settle()
    ids = [flows.request(made)["withdrawals"][0]["withdrawal_id"] for made in (first, second)]
    flows.desk.oracle.finalize()
    return first, second, ids[0], ids[1]


def test_claim__one_id_moved_to_a_stranger__the_others_are_claimed(flows: Flows) -> None:
    desk = flows.desk
    first, second, nft, _ = two_waiting(flows)
    flows.by_hand(desk.queue.transferFrom(desk.operator, desk.user, nft))
    flows.claims()
    flows.settle()
    assert flows.request(second)["status"] == "completed"
    assert flows.request(first)["status"] == "waiting"
    assert flows.claims() == 0
    assert flows.drifts() == {"nfts": -5 * ETHER}


def test_claim__one_id_moved_after_the_batch_was_opened__the_batch_goes_on_without_it(flows: Flows) -> None:
    desk = flows.desk
    first, second, nft, _ = two_waiting(flows)
    assert flows.claims() == 1
    flows.by_hand(desk.queue.transferFrom(desk.operator, desk.user, nft))
    flows.settle()
    assert flows.request(second)["status"] == "completed"
    assert flows.request(first)["status"] == "waiting"
    with transaction(flows.context.sessions) as session:
        row = session.get(Withdrawal, nft)
        assert row is not None
        assert row.claim_batch_id is None


def test_claim__one_id_claimed_already__both_are_paid_by_their_logs(flows: Flows) -> None:
    desk = flows.desk
    first, second, nft, other = two_waiting(flows)
    assert flows.claims() == 1
    receipt = flows.by_hand(desk.queue.claimWithdrawalsTo([nft], [1], desk.operator))
    flows.settle()
    flows.claims()
    flows.settle()
    paid = desk.events("WithdrawalClaimed", receipt)[0]["amountOfETH"]
    assert [flows.request(made)["status"] for made in (first, second)] == ["completed", "completed"]
    assert flows.request(first)["settled_wei"] == str(paid)
    assert desk.status(other)[5]
    assert flows.drifts() == {}


def test_claim__one_id_not_final_any_more__waits_for_its_turn(flows: Flows) -> None:
    flows.stake("ann", 20 * ETHER)
    first, second = flows.ask("unstake", "ann", 5 * ETHER), flows.ask("unstake", "ann", 6 * ETHER)
    flows.settle()
    ids = [flows.request(made)["withdrawals"][0]["withdrawal_id"] for made in (first, second)]
    flows.desk.oracle.finalize(ids[0])
    assert flows.claims() == 1
    flows.settle()
    assert [flows.request(made)["status"] for made in (first, second)] == ["completed", "waiting"]
