"""Attacks on the log as its tables' owner: refused by the database, or noticed at the next start, or by the audit."""

from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError

from apps.common.append_only import NotAppendOnly
from migrations import runner
from tests.support.rewards import House, accrual, deltas, make_house

CHANGES = [
    "UPDATE reward_events SET claimed_wei = 5",
    "UPDATE reward_events SET created_at = now() WHERE kind = 'stake_delta'",
    "DELETE FROM reward_events",
    "DELETE FROM reward_events WHERE message_id = 's:1'",
    "TRUNCATE reward_events",
    "TRUNCATE reward_events, reward_positions, reward_pools CASCADE",
    "MERGE INTO reward_events e USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
    "INSERT INTO reward_events (pool_id, kind, message_id, acc_reward_per_share) VALUES ('p', 'stake_delta', 's:1', 0)"
    " ON CONFLICT (message_id, kind) DO UPDATE SET pool_id = 'p'",
]


@pytest.fixture
def lived(house: House) -> House:
    house.done("/v1/stake-deltas", deltas(("s:1", "ann", 10, 0), ("s:2", "ben", 20, 0)))
    house.accrue("a:1", 9)
    house.claim("c:1", "ann")
    house.claim("c:2", "ann")  # of nothing: only its message knows of it
    return house


def state(house: House) -> tuple[object, ...]:
    return (house.events(), house.pool(), house.position("ann"), house.position("ben"))


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_log__changed_by_the_owner__refused(lived: House, change: str, *, replica: bool) -> None:
    before = state(lived)
    assert lived.sql("SELECT current_user = tableowner AS owner FROM pg_tables WHERE tablename = 'reward_events'") == [
        (True,)
    ]
    role = "SET LOCAL session_replication_role = replica; " if replica else ""
    with pytest.raises(DBAPIError) as refused:
        lived.sql(role + change)
    assert getattr(refused.value.orig, "pgcode", None) == "AO001"
    assert state(lived) == before
    assert lived.differences() == []


WEAKENINGS = [
    ("ALTER TABLE reward_events DISABLE TRIGGER append_only", "UPDATE.*DELETE.*TRUNCATE.*UPDATE.*as a replica"),
    ("ALTER TABLE reward_events DISABLE TRIGGER USER", "UPDATE.*DELETE.*TRUNCATE.*UPDATE.*as a replica"),
    ("ALTER TABLE reward_events ENABLE TRIGGER append_only", "accepts: UPDATE [^;]* as a replica"),
    ("DROP TRIGGER append_only ON reward_events", "UPDATE.*DELETE.*TRUNCATE"),
    (
        "DROP TRIGGER append_only ON reward_events; CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON reward_events"
        " EXECUTE FUNCTION refuse_change(); ALTER TABLE reward_events ENABLE ALWAYS TRIGGER append_only",
        "accepts: TRUNCATE",
    ),
    (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN coalesce(new, old); END $$",
        "UPDATE.*DELETE",
    ),
]


@pytest.mark.parametrize(("weakening", "accepted"), WEAKENINGS)
def test_start__log_could_be_changed__refused_and_says_how(database_url: str, weakening: str, accepted: str) -> None:
    make_house(database_url).sql(weakening)
    with pytest.raises(NotAppendOnly, match=accepted):
        make_house(database_url)


def test_start__many_times__leaves_no_trace(lived: House, database_url: str) -> None:
    lived.claim("@probe", "ann")
    before = state(lived)
    make_house(database_url)
    assert state(lived) == before
    assert lived.sql("SELECT count(*) FROM reward_events WHERE pool_id = '@probe'") == [(0,)]


def test_start__no_database__starts_and_says_503() -> None:
    house = make_house("postgresql://nobody@127.0.0.1:1/rewards")
    assert house.ask("/status/rewards").status_code == 503
    assert house.refusal("/v1/accruals", accrual("a:1", 1)) == (503, "append_only_unproven")


def test_start__not_migrated_yet__proven_before_the_first_write(make_database: Callable[[str], str]) -> None:
    url = make_database("protocols")
    house = make_house(url)
    assert house.refusal("/v1/accruals", accrual("a:1", 1)) == (503, "append_only_unproven")
    runner.downgrade("protocols", url)
    house.sql("DROP TABLE alembic_version")
    runner.upgrade("rewards", url)
    house.sql("ALTER TABLE reward_events DISABLE TRIGGER USER")
    for path, body in (("/v1/accruals", accrual("a:1", 1)), ("/v1/stake-deltas", deltas(("s:1", "ann", 1, 0)))):
        assert house.post(path, body).status_code == 500
    assert house.pool()["accrued_wei"] == 0
    house.sql("ALTER TABLE reward_events ENABLE ALWAYS TRIGGER append_only")
    house.accrue("a:1", 1)


@pytest.mark.parametrize("message_id", ["s:2", "a:1", "c:1", "c:2"])
def test_log__entry_removed_with_the_triggers_off__found_by_name(lived: House, message_id: str) -> None:
    lived.sql(
        "ALTER TABLE reward_events DISABLE TRIGGER USER;"
        f" DELETE FROM reward_events WHERE message_id = '{message_id}';"
        " ALTER TABLE reward_events ENABLE ALWAYS TRIGGER append_only"
    )
    found = {difference["subject"] for difference in lived.differences()}
    assert f"eth_native message {message_id}" in found


def test_log__everything_removed_with_the_triggers_off__found_by_name(lived: House) -> None:
    lived.sql("ALTER TABLE reward_events DISABLE TRIGGER USER; TRUNCATE reward_events, reward_positions, reward_pools")
    found = {difference["subject"] for difference in lived.differences()}
    assert found == {f"eth_native message {message_id}" for message_id in ("s:1", "s:2", "a:1", "c:1", "c:2")}


def test_log__entry_edited_with_the_triggers_off__found_by_name(lived: House) -> None:
    event_id = lived.events(kind="claim")[0]["id"]
    lived.sql(
        "ALTER TABLE reward_events DISABLE TRIGGER USER;"
        " UPDATE reward_events SET claimed_wei = claimed_wei + 1 WHERE kind = 'claim';"
        " ALTER TABLE reward_events ENABLE ALWAYS TRIGGER append_only"
    )
    assert [(item["subject"], item["field"]) for item in lived.differences()] == [
        (f"eth_native event {event_id}", "claimed_wei"), (f"eth_native event {event_id + 1}", "claimed_wei"),
    ]  # fmt: skip


def test_log__event_that_no_message_asked_for__found_by_name(lived: House) -> None:
    lived.sql(
        "INSERT INTO reward_events (pool_id, kind, message_id, user_id, acc_reward_per_share)"
        " SELECT pool_id, 'stake_delta', 'forged', 'ann', acc_reward_per_share FROM reward_pools"
    )
    assert lived.differences() == [
        {"subject": "eth_native message forged", "field": "event", "expected": "none", "found": "stake_delta"}
    ]


def test_log__message_key_removed__found_by_name_and_the_message_is_not_done_twice(lived: House) -> None:
    lived.sql("DELETE FROM message_keys WHERE message_id = 'a:1'")
    assert [difference["subject"] for difference in lived.differences()] == ["eth_native message a:1"]
    before = lived.pool()
    assert lived.post("/v1/accruals", accrual("a:1", 9)).status_code == 500
    assert lived.pool() == before
