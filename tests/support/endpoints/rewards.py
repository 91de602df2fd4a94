"""The reward index's operations."""

from dataclasses import replace

from tests.support.endpoints.call import Call, Table, body, reads, span, writes
from tests.support.endpoints.world import ANN, World

AUDITS = frozenset({"rewards.reward_audits", "rewards.audit_stretches", "rewards.audit_checkpoints"})
GAIN = "1000000000000000000"


def park(world: World, name: str) -> Call:
    """A reward that came while nobody had stake, and somebody who has some now."""
    world.done("rewards", "create_accrual", _accrual(name, f"{name}:parked"))
    world.done("rewards", "create_stake_deltas", _stake(name, "cas"))
    return Call(body={"message_id": f"{name}:release", "pool_id": name, "amount_wei": GAIN})


def earn(world: World, name: str) -> Call:
    _earn(world, name)
    return Call(body={"message_id": f"{name}:claim", "pool_id": name, "user_id": "cas"})


def earn_for_several(world: World, name: str) -> Call:
    _earn(world, name)
    return Call(body={"pool_id": name, "claims": [{"message_id": f"{name}:claim", "user_id": "cas"}]})


def _earn(world: World, name: str) -> None:
    """Somebody in a pool of their own with a reward that is pending."""
    world.done("rewards", "create_stake_deltas", _stake(name, "cas"))
    world.done("rewards", "create_accrual", _accrual(name, f"{name}:gain"))


def _accrual(pool_id: str, message_id: str) -> Call:
    body = {"message_id": message_id, "pool_id": pool_id, "new_rewards_wei": GAIN, "source": "lido"}
    return Call(body=body)


def _stake(pool_id: str, user_id: str) -> Call:
    delta = {"message_id": f"{pool_id}:stake", "user_id": user_id, "staked_delta_wei": "32000000000000000000"}
    return Call(body={"pool_id": pool_id, "deltas": [{**delta, "exiting_delta_wei": "0"}]})


REWARDS: Table = {
    "create_stake_deltas": writes(lambda _world, name: _stake(name, "cas")),
    "create_accrual": body(message_id="{name}", pool_id="{name}", new_rewards_wei=GAIN, source="lido"),
    "release_parked": writes(park),
    "create_claim": writes(earn),
    "create_claims": writes(earn_for_several),
    "continue_settlement": body(pool_id="eth_native"),
    "get_reward_pool": reads({"pool_id": "eth_native"}),
    "get_position": reads({"user_id": ANN}),
    "get_earnings": span(user_id=ANN),
    "get_fee": reads(),
    "list_positions": reads(limit="2"),
    "list_reward_events": reads(limit="2"),
    "create_audit": replace(
        body(full=True),
        each=AUDITS,
    ),
    "list_audits": reads(limit="2"),
}
