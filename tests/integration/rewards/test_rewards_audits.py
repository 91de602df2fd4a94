"""Audits: what was changed past the service is found, each by name."""

import pytest

from tests.support.rewards import House


@pytest.fixture
def lived(house: House) -> House:
    """Some of everything; ann holds pending."""
    house.accrue("a:1", 50)
    house.stake("s:1", "ann", 100)
    house.stake("s:2", "ben", 50)
    house.accrue("a:2", 33)
    house.claim("c:1", "ben")
    house.release("r:1", 20)
    house.stake("s:3", "ann", -10, 10)
    assert house.differences() == []
    return house


def test_audit__clean__shape_and_list(lived: House) -> None:
    audit = lived.done("/v1/audits", {})
    assert list(audit) == ["id", "ok", "differences", "created_at"]
    assert (audit["ok"], audit["differences"]) == (True, [])
    other = lived.done("/v1/audits", {"pool_id": "eth_native"})
    listed = lived.get("/v1/audits", limit=2)
    assert listed["items"] == [other, audit]
    assert len(lived.get("/v1/audits", limit=2, after=listed["next"])["items"]) == 1


@pytest.mark.parametrize(
    ("change", "subject", "field"),
    [
        ("UPDATE reward_positions SET staked_wei = staked_wei + 1 WHERE user_id = 'ann'", "position ann", "staked"),
        ("UPDATE reward_positions SET exiting_wei = 0 WHERE user_id = 'ann'", "position ann", "exiting"),
        ("UPDATE reward_positions SET claimed_wei = 0 WHERE user_id = 'ben'", "position ben", "claimed"),
        (
            "UPDATE reward_positions SET pending_scaled = pending_scaled + 1 WHERE user_id = 'ann'",
            "position ann",
            "pending_scaled",
        ),
        ("DELETE FROM reward_positions WHERE user_id = 'ben'", "position ben", "staked"),
        (
            "INSERT INTO reward_positions VALUES ('eth_native', 'eve', 5, 0, 0, 0, 0)",
            "position eve",
            "staked",
        ),
        ("UPDATE reward_pools SET weight_wei = weight_wei + 1", "pool", "weight"),
        ("UPDATE reward_pools SET acc_reward_per_share = acc_reward_per_share + 1", "pool", "index"),
        ("UPDATE reward_pools SET remainder = remainder + 1", "pool", "remainder"),
        ("UPDATE reward_pools SET accrued_wei = accrued_wei + 1", "pool", "accrued"),
        ("UPDATE reward_pools SET claimed_wei = claimed_wei + 1", "pool", "claimed"),
        ("UPDATE reward_pools SET parked_wei = parked_wei + 1", "pool", "parked"),
        ("UPDATE reward_pools SET deficit_wei = deficit_wei + 1", "pool", "deficit"),
        ("UPDATE reward_pools SET fee_remainder = 1", "pool", "fee_remainder"),
        ("DELETE FROM reward_pools", "pool", "accrued"),
        ("TRUNCATE reward_positions", "position ann", "staked"),
    ],
)
def test_audit__table_changed_past_the_service__found_by_name(
    lived: House, change: str, subject: str, field: str
) -> None:
    lived.sql(change)
    found = {(difference["subject"], difference["field"]) for difference in lived.differences()}
    assert (f"eth_native {subject}", field) in found


def test_audit__forged_event__found_by_name(lived: House) -> None:
    lived.sql(
        "INSERT INTO reward_events (pool_id, kind, message_id, user_id, staked_delta_wei, claimed_wei,"
        " acc_reward_per_share) VALUES ('eth_native', 'claim', 'forged', 'eve', 1000, 1000, 0)"
    )
    event_id = lived.sql("SELECT id FROM reward_events WHERE message_id = 'forged'")[0].id
    found = {(difference["subject"], difference["field"]): difference for difference in lived.differences()}
    assert found[f"eth_native event {event_id}", "claimed_wei"]["expected"] == "0"
    assert found[f"eth_native event {event_id}", "claimed_wei"]["found"] == "1000"
