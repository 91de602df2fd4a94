"""The replay of a log: what contradicts the arithmetic, or itself, is named."""

from dataclasses import dataclass

from apps.rewards.index_math import GWEI, P, PoolState, PositionState
from apps.rewards.replay import Replay

ETHER = 10**18


@dataclass
class Logged:
    id: int
    kind: str
    user_id: str | None = None
    staked_delta_wei: int = 0
    exiting_delta_wei: int = 0
    claimed_wei: int = 0
    new_rewards_wei: int | None = None
    fee_wei: int | None = None
    distributed_wei: int | None = None
    parked_wei: int | None = None
    weight_wei: int | None = None
    fee_bps: int | None = None
    acc_reward_per_share: int = 0


STAKED = Logged(1, "stake_delta", "ann", ETHER)
LOSS_INDEX = -GWEI * P // ETHER
LOSS = Logged(
    2, "accrual", None, 0, 0, 0, -GWEI, 0, -GWEI, 0, weight_wei=ETHER, fee_bps=0, acc_reward_per_share=LOSS_INDEX
)
SETTLED = Logged(3, "settle", "ann", -GWEI, 0, -GWEI, acc_reward_per_share=LOSS_INDEX)


def found(*events: Logged) -> list[tuple[str, str]]:
    return [(difference.subject, difference.field) for difference in Replay().run(events).differences]


def test_replay__loss_and_its_settlement__no_difference() -> None:
    replay = Replay().run([STAKED, LOSS, SETTLED])
    assert replay.differences == []
    assert replay.positions["ann"].staked == ETHER - GWEI


def test_replay__great_loss_left_unsettled__named_with_the_user() -> None:
    claimed_later = Logged(3, "claim", "ann", -GWEI, 0, -GWEI, acc_reward_per_share=LOSS_INDEX)
    assert found(STAKED, LOSS) == [("event 2", "settled ann")]
    assert found(STAKED, LOSS, claimed_later) == [("event 2", "settled ann")]


def loss_of_150(distributed: int, parked: int, index: int) -> Logged:
    return Logged(2, "accrual", None, 0, 0, 0, -150, 0, distributed, parked, 100, 0, index)


def test_replay__loss_greater_than_the_stake__only_what_can_be_borne_is_distributed() -> None:
    staked = Logged(1, "stake_delta", "ann", 100)
    settled = Logged(3, "settle", "ann", -100, 0, -100, acc_reward_per_share=-P)
    assert found(staked, loss_of_150(-100, -50, -P), settled) == []
    assert found(staked, loss_of_150(-100, -50, -P)) == [("event 2", "settled ann")]
    wrong = [("event 2", "distributed_wei"), ("event 2", "parked_wei")]
    assert found(staked, loss_of_150(-99, -51, -P), settled) == wrong
    assert found(staked, loss_of_150(-150, 0, -P), settled) == wrong


def test_replay__release_of_a_loss_that_could_not_be_borne__named_by_its_number() -> None:
    parked = Logged(1, "accrual", None, 0, 0, 0, -150, 0, 0, -150, weight_wei=0, fee_bps=0)
    staked = Logged(2, "stake_delta", "ann", 100)
    freed = Logged(3, "release", None, 0, 0, 0, 0, 0, -101, 101, weight_wei=100, fee_bps=0)
    assert found(parked, staked, freed) == [("event 3", "kind")]


def test_replay__event_that_could_not_have_been__named_by_its_number() -> None:
    assert found(Logged(7, "stake_delta", "ann", -1)) == [("event 7", "kind")]
    assert found(Logged(8, "release", distributed_wei=5)) == [("event 8", "kind")]


def test_replay__numbers_that_do_not_follow__each_named() -> None:
    wrong = Logged(2, "accrual", None, 0, 0, 0, 1000, 1, 999, 3, weight_wei=5, fee_bps=0, acc_reward_per_share=1)
    assert found(STAKED, wrong) == [
        ("event 2", "fee_wei"), ("event 2", "distributed_wei"), ("event 2", "parked_wei"), ("event 2", "weight_wei"),
        ("event 2", "acc_reward_per_share"),
    ]  # fmt: skip


def test_compare__position_settled_later_than_the_log_says__no_difference() -> None:
    replay = Replay().run([STAKED])
    pool, ann = PoolState(weight=ETHER), PositionState(staked=ETHER)
    assert replay.compare(pool, [("ann", ann)]) == []
    assert {(item.subject, item.field) for item in replay.compare(pool, [("ann", ann), ("eve", ann)])} == {
        ("position eve", "staked"), ("conservation", "weight"),
    }  # fmt: skip
