"""Audits of the reward index from the last clean one on: what each kind finds of what was forged before and after it."""

import threading

import pytest

from tests.support.backends import BackendKiller, killed_everywhere
from tests.support.rewards import POOL, House, accrual, settle_in_pieces

GWEI = 10**9
SLEEP = "SET session_replication_role = replica; ALTER TABLE reward_events DISABLE TRIGGER append_only;"


@pytest.fixture
def audited(house: House) -> House:
    """Some of everything behind a clean full audit, and after it some more, clean by an audit of what is new."""
    house.accrue("a:1", 50)
    house.stake("s:1", "ann", 100)
    house.stake("s:2", "ben", 50)
    house.stake("s:old", "old", 60)
    house.accrue("a:2", 33)
    house.claim("c:1", "ben")
    house.release("r:1", 20)
    assert house.differences() == []
    house.stake("s:3", "ann", -10, 10)
    house.accrue("a:3", -7)
    assert house.differences(POOL, full=False) == []
    assert audits(house) == [(True, True), (True, False)]
    return house


def audits(house: House) -> list[tuple[bool, bool]]:
    return [tuple(row) for row in house.sql("SELECT ok, complete FROM reward_audits ORDER BY created_at")]


def found(house: House, *, full: bool = False) -> set[tuple[str, str]]:
    return {(each["subject"].removeprefix(f"{POOL} "), each["field"]) for each in house.differences(POOL, full=full)}


@pytest.mark.parametrize(
    ("change", "recent"),
    [
        ("UPDATE reward_positions SET staked_wei = staked_wei + 1 WHERE user_id = 'old'", ("conservation", "weight")),
        (
            "UPDATE reward_positions SET pending_scaled = pending_scaled + 1 WHERE user_id = 'old'",
            ("conservation", "owed"),
        ),
        ("DELETE FROM reward_positions WHERE user_id = 'old'", ("conservation", "weight")),
        ("UPDATE reward_pools SET remainder = remainder + 1", ("pool", "remainder")),
        # Two positions that changed places: sums tell nothing, only the whole log does.
        ("UPDATE reward_positions SET user_id = 'eve' WHERE user_id = 'old'", None),
    ],
)
def test_forged__position_behind_the_checkpoint__found_by_the_sums_or_by_the_full_audit(
    audited: House, change: str, recent: tuple[str, str] | None
) -> None:
    audited.sql(change)
    told = found(audited)
    assert (recent in told) if recent else told == set()
    assert found(audited, full=True)


def test_forged__event_behind_the_checkpoint__found_when_its_stretch_has_its_turn(audited: House) -> None:
    audited.sql(f"{SLEEP} UPDATE reward_events SET source = 'forged' WHERE message_id = 'a:1'")
    (turns,) = audited.sql("SELECT count(*) FROM audit_stretches")[0]
    told = [found(audited) for _ in range(turns)]
    assert any(field == "digest" for each in told for _, field in each)
    assert any(field == "digest" for _, field in found(audited, full=True))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("UPDATE reward_positions SET staked_wei = staked_wei + 1 WHERE user_id = 'cat'", ("position cat", "staked")),
        ("UPDATE reward_pools SET accrued_wei = accrued_wei + 1", ("pool", "accrued")),
        (f"{SLEEP} UPDATE reward_events SET claimed_wei = claimed_wei + 1 WHERE message_id = 'n:2'", None),
        (f"{SLEEP} DELETE FROM reward_events WHERE message_id = 'n:1'", ("pool", "weight")),
        ("DELETE FROM message_keys WHERE message_id = 'n:2'", ("message n:2", "event")),
        (f"{SLEEP} UPDATE reward_events SET staked_delta_wei = -9999 WHERE message_id = 'n:1'", None),
    ],
)
def test_forged__after_the_checkpoint__found_by_the_next_audit_of_what_is_new(
    audited: House, change: str, wanted: tuple[str, str] | None
) -> None:
    audited.stake("n:1", "cat", 500)
    audited.claim("n:2", "ann")
    audited.sql(change)
    told = found(audited)
    assert wanted in told if wanted else any(subject.startswith("event ") for subject, _ in told)
    assert audits(audited)[-1] == (False, False)


def test_checkpoint__after_an_audit_that_found_something__does_not_move_until_a_full_one_is_clean(
    audited: House,
) -> None:
    places = "SELECT max(through_id), (SELECT max(through_id) FROM audit_stretches) FROM audit_checkpoints"
    before = audited.sql(places)
    audited.stake("n:1", "cat", 500)
    audited.sql("UPDATE reward_pools SET parked_wei = parked_wei + 1")
    assert found(audited)
    assert found(audited)
    assert audits(audited)[-2:] == [(False, False), (False, True)]
    assert audited.sql(places) == before
    audited.sql("UPDATE reward_pools SET parked_wei = parked_wei - 1")
    assert [found(audited), found(audited)] == [set(), set()]
    assert audits(audited)[-2:] == [(True, True), (True, False)]
    assert audited.sql(places)[0][0] > before[0][0]


def test_audit_of_what_is_new__of_a_settled_loss__checks_that_it_reached_everybody(audited: House) -> None:
    for user in ("ann", "ben", "old"):
        audited.stake(f"more:{user}", user, 1000 * GWEI)
    assert found(audited) == set()
    audited.accrue("loss", -400 * GWEI)
    assert found(audited) == set()
    audited.stake("late", "zoe", 1000 * GWEI)
    audited.accrue("loss:2", -400 * GWEI)
    # As if it had left one of them out.
    audited.sql(
        f"{SLEEP} UPDATE reward_positions p SET staked_wei = p.staked_wei - e.claimed_wei,"
        " claimed_wei = p.claimed_wei - e.claimed_wei,"
        " index_snapshot = (SELECT acc_reward_per_share FROM reward_events WHERE message_id = 'loss')"
        " FROM reward_events e WHERE e.message_id LIKE 'loss:2:settle:%' AND e.user_id = 'old' AND p.user_id = 'old';"
        " DELETE FROM reward_events WHERE message_id LIKE 'loss:2:settle:%' AND user_id = 'old'"
    )
    assert ("conservation", "settled old") in found(audited)


def test_audit_of_what_is_new__in_the_middle_of_a_settlement__finds_nothing_and_starts_nothing(audited: House) -> None:
    settle_in_pieces(audited.client.application, 1)
    for user in ("ann", "ben", "old"):
        audited.stake(f"more:{user}", user, 1000 * GWEI)
    assert found(audited) == set()
    before = audited.sql("SELECT count(*) FROM audit_checkpoints")
    assert audited.refusal("/v1/accruals", accrual("loss", -400 * GWEI)) == (409, "in_progress")
    audited.claim("c:old", "old")
    assert found(audited) == set()
    assert audited.sql("SELECT count(*) FROM audit_checkpoints") == before
    while audited.post("/v1/settlements", {"pool_id": POOL}).get_json()["settling"]:
        assert found(audited) == set()
    assert found(audited) == set()
    assert audited.sql("SELECT count(*) FROM audit_checkpoints") > before
    assert found(audited, full=True) == set()


def test_audit_of_what_is_new__of_a_loss_that_was_parked_in_part__becomes_a_full_one(audited: House) -> None:
    audited.accrue("ruin", -(10**9))
    assert found(audited) == set()
    assert audits(audited)[-1] == (True, True)


def test_audits__while_others_write__find_nothing(audited: House) -> None:
    over = threading.Event()

    def write(user: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            audited.stake(f"{user}:{number}", user, 5)
            audited.claim(f"{user}:c{number}", user)
            audited.accrue(f"{user}:a{number}", number)

    writers = [threading.Thread(target=write, args=(f"writer-{number}",)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        told = [found(audited) for _ in range(8)]
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert told == [set()] * 8
    assert found(audited, full=True) == set()


def test_audit__its_backend_killed_at_every_statement__leaves_nothing_and_the_next_one_all(audited: House) -> None:
    left = (
        "SELECT (SELECT count(*) FROM reward_audits), (SELECT count(*) FROM audit_stretches),"
        " (SELECT count(*) FROM audit_checkpoints)"
    )
    killer = BackendKiller(audited.client.application.extensions["sessions"].kw["bind"])
    audited.stake("new", "cat", 5)
    answer = killed_everywhere(
        killer, lambda: audited.post("/v1/audits", {"pool_id": POOL, "full": False}), lambda: audited.sql(left)
    )
    assert answer.get_json()["ok"] is True
    assert found(audited, full=True) == set()
