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
