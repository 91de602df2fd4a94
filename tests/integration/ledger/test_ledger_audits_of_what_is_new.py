"""Audits from the last clean one on: what each kind finds of what was forged before and after it, and where the next starts."""

import threading
from itertools import pairwise

import pytest

from tests.integration.ledger.test_ledger_attacks import CHANGES, DROP_GUARDS, REPLICA, write_books
from tests.support.backends import BackendKiller, killed_everywhere
from tests.support.ledger import POOL, LedgerHouse


@pytest.fixture
def audited(ledger: LedgerHouse) -> LedgerHouse:
    """Alice's books with a clean full audit, and after it bob's, clean by an audit of what is new."""
    write_books(ledger)
    ledger.move("deposit", 50, "bob", message_id="b1")
    ledger.move("stake_reserve", 20, "bob", message_id="b2")
    assert ledger.differences(full=False) == set()
    assert audits(ledger) == [(True, True), (True, False)]
    return ledger


def audits(ledger: LedgerHouse) -> list[tuple[bool, bool]]:
    """ok and complete, oldest first."""
    return [(ok, complete) for ok, complete in ledger.sql("SELECT ok, complete FROM audits ORDER BY created_at")]


def forge(ledger: LedgerHouse, change: str) -> None:
    """As an owner who drops the guards and lets the keys sleep."""
    ledger.sql(f"{DROP_GUARDS}; {REPLICA}; {change}")


# Of a movement or a user behind the checkpoint: found by an audit of what is new, or by the full one alone.
OLD = {
    "movement_edited": ("movements", True),
    "movement_deleted": ("movements", True),
    "balance_forged": ("pool", True),
    "balance_moved_between_buckets": ("balance", True),
    "balance_deleted": ("balance", True),
    "key_deleted": ("movement", False),
    "refusal_deleted": ("message", False),
}


@pytest.mark.parametrize("attack", OLD)
def test_forged__before_the_checkpoint__found_when_its_stretch_has_its_turn_and_by_the_full_audit(
    audited: LedgerHouse, attack: str
) -> None:
    subject, in_turn = OLD[attack]
    forge(audited, CHANGES[attack])
    turns = audited.sql("SELECT count(*) FROM audit_stretches")[0][0]
    assert turns == 2
    found = set()
    for _ in range(turns):
        found |= audited.differences(full=False)
        if found:
            break
    assert ({name.split(":")[0] for name, _ in found} >= {subject}) == in_turn
    assert subject in {name.split(":")[0] for name, _ in audited.differences()}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE movements SET amount_wei = amount_wei + 1 WHERE message_id = 'n2'", "movement:n2"),
        ("DELETE FROM movements WHERE message_id = 'n1'", "movement:n2"),
        ("DELETE FROM movements WHERE message_id = 'n2'", "balance:eth_native:alice"),
        ("UPDATE balances SET available_wei = available_wei + 1 WHERE user_id = 'alice'", "balance:eth_native:alice"),
        (
            "UPDATE balances SET available_wei = 0, reserved_wei = 107 WHERE user_id = 'alice'",
            "balance:eth_native:alice",
        ),
        ("DELETE FROM message_keys WHERE message_id = 'n1'", "movement:n1"),
        ("UPDATE movements SET kind = 'deposit' WHERE message_id = 'n2'", "movement:n2"),
        ("UPDATE system_checkpoints SET sum_wei = sum_wei + 1 WHERE account = '@custody'", "pool:eth_native"),
    ],
)
def test_forged__after_the_checkpoint__found_by_the_next_audit_of_what_is_new(
    audited: LedgerHouse, change: str, found: str
) -> None:
    audited.move("deposit", 7, "alice", message_id="n1")
    audited.move("stake_reserve", 7, "alice", message_id="n2")
    forge(audited, change)
    assert found in {subject for subject, _ in audited.differences(full=False)}
    assert audits(audited)[-1] == (False, False)


def test_chain__forged_across_the_checkpoint__is_found(audited: LedgerHouse) -> None:
    """The first new movement of a user takes up what the newest old one left."""
    audited.move("deposit", 7, "alice", message_id="n1")
    forge(audited, "UPDATE movements SET previous_id = 4 WHERE message_id = 'n1'")
    assert ("movement:n1", "previous_id") in audited.differences(full=False)


def test_checkpoint__after_an_audit_that_found_something__does_not_move_until_a_full_one_is_clean(
    audited: LedgerHouse,
) -> None:
    places = "SELECT max(through_id), (SELECT max(through_id) FROM audit_stretches) FROM audits"
    before = audited.sql(places)
    audited.move("deposit", 7, "alice", message_id="n1")
    forge(audited, "UPDATE balances SET available_wei = available_wei + 1 WHERE user_id = 'alice'")
    assert audited.differences(full=False) != set()
    audited.move("deposit", 7, "bob", message_id="n2")
    assert audited.differences(full=False) != set()
    assert audits(audited)[-2:] == [(False, False), (False, True)]  # of what is new, and then of everything
    assert audited.sql(places) == before
    audited.sql(f"{REPLICA}; UPDATE balances SET available_wei = available_wei - 1 WHERE user_id = 'alice'")
    assert audited.differences(full=False) == set()
    assert audits(audited)[-1] == (True, True)
    assert audited.differences(full=False) == set()
    assert audits(audited)[-1] == (True, False)
    assert audited.sql(places)[0][0] == audited.sql("SELECT max(id) FROM movements")[0][0]


def test_audit__without_a_clean_full_one_of_the_pool__is_a_full_one(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 7, "alice", pool_id="other")
    assert ledger.differences(full=False) == set()
    assert ledger.differences("other", full=False) == set()
    assert audits(ledger) == [(True, True), (True, True)]


def test_audits__while_others_post__find_nothing_and_cover_everything(audited: LedgerHouse) -> None:
    over = threading.Event()

    def post(user: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            audited.move("deposit", number, user, message_id=f"{user}:{number}")
            audited.move("stake_reserve", 1, user, message_id=f"{user}:r{number}")

    posters = [threading.Thread(target=post, args=(f"poster-{number}",)) for number in range(3)]
    for poster in posters:
        poster.start()
    try:
        found = [audited.differences(full=False) for _ in range(8)]
    finally:
        over.set()
        for poster in posters:
            poster.join()
    assert found == [set()] * 8
    assert audited.differences() == set()
    stretches = audited.sql("SELECT from_id, through_id FROM audit_stretches ORDER BY through_id")
    assert stretches[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(stretches))


def test_audit__its_backend_killed_at_every_statement__leaves_nothing_and_the_next_one_all(
    audited: LedgerHouse,
) -> None:
    left = (
        "SELECT (SELECT count(*) FROM audits), (SELECT count(*) FROM audit_stretches),"
        " (SELECT count(*) FROM system_checkpoints)"
    )
    killer = BackendKiller(audited.app.extensions["sessions"].kw["bind"])
    audited.move("gas_float", 5, message_id="new")
    answer = killed_everywhere(
        killer, lambda: audited.post("/v1/audits", {"pool_id": POOL, "full": False}), lambda: audited.sql(left)
    )
    assert answer.get_json()["ok"] is True
    assert audited.differences() == set()
