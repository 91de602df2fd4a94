"""Many writers at once: nobody queues behind a row of the system's, nobody waits in a circle, no wei goes missing."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ledger import LedgerHouse, wait_until_blocked
from tests.support.ledger_model import KINDS

CONNECTIONS = 8
USERS = [f"u{number}" for number in range(12)]
USER_KINDS = [kind for kind, sides in KINDS.items() if any(not side.startswith("@") for side in sides)]


def test_deposit__while_another_users_is_not_committed__waits_for_nothing(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 5, "alice")
    with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
        for user in ("alice", "carol"):  # one with a row, one whose first it is
            cursor.execute(
                "SELECT * FROM post_movement(%s, 'deposit', 'eth_native', %s, '@custody', 'available', 5, NULL, '')",
                (f"open:{user}", user),
            )
        ledger.move("deposit", 5, "bob")
        assert ledger.batch([ledger.body("deposit", 5, "dave"), ledger.body("gas_float", 5)]).status_code == 201
    ledger.assert_books_agree()


@pytest.mark.parametrize("rounds", [30, pytest.param(1_250, marks=pytest.mark.prove)])
def test_batches__of_random_users_from_eight_connections__never_deadlock(ledger: LedgerHouse, rounds: int) -> None:
    """L18: the users come in any order, some for the first time, singles and reversals in between."""
    start = threading.Barrier(CONNECTIONS)

    def work(connection: int) -> set[int]:
        draw = random.Random(connection)
        client_statuses = set()
        start.wait(timeout=60)
        for number in range(rounds):
            name = f"{connection}:{number}"
            rows = [
                ledger.body(draw.choice(USER_KINDS[:4]), draw.randint(1, 9), user, message_id=f"{name}:{user}")
                for user in draw.sample(USERS, draw.randint(1, len(USERS)))
            ]
            deposits = [ledger.body("deposit", 50, f"{user}:{number % 7}") for user in draw.sample(USERS, 3)]
            draw.shuffle(rows)
            client_statuses.add(ledger.batch([*deposits, *rows] if number % 3 else deposits).status_code)
            body = ledger.body("deposit", 99, draw.choice(USERS), message_id=f"{name}:single")
            client_statuses.add(ledger.post("/v1/movements", body).status_code)
            if number % 4 == 0:
                back = ledger.body("reversal", 99, body["user_id"], reference=body["message_id"])
                late = ledger.body("reversal", 99, body["user_id"], reference=body["message_id"])
                client_statuses.add(ledger.batch([back]).status_code)
                client_statuses.add(ledger.post("/v1/movements", late).status_code)
        return client_statuses

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        statuses = set().union(*threads.map(work, range(CONNECTIONS)))
    assert statuses <= {200, 201, 409}
    assert ledger.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    ledger.assert_books_agree()


@pytest.mark.parametrize("user", ["alice", None])
@pytest.mark.parametrize("batched", [False, True])
def test_reversals__of_one_movement_by_many_at_once__are_one(
    ledger: LedgerHouse, user: str | None, *, batched: bool
) -> None:
    original = ledger.move("deposit" if user else "gas_float", 5, user)
    bodies = [ledger.body("reversal", 5, user, reference=original["message_id"]) for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(
            threads.map(lambda body: ledger.batch([body]) if batched else ledger.post("/v1/movements", body), bodies)
        )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 15
    assert {answer.get_json()["code"] for answer in answers if answer.status_code == 409} == {"already_reversed"}
    assert ledger.read("/v1/totals")["system"]["@custody"] == "0"
    ledger.assert_books_agree()


@pytest.mark.parametrize("batched", [False, True])
def test_reversal__while_another_of_the_same_is_not_committed__waits_and_is_told(
    ledger: LedgerHouse, *, batched: bool
) -> None:
    original = ledger.move("gas_float", 5)["message_id"]
    body = ledger.body("reversal", 5, reference=original)
    with ThreadPoolExecutor(1) as threads:
        with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
            post = "SELECT code FROM post_movement('first', 'reversal', 'eth_native', NULL, NULL, NULL, 5, %s, '')"
            cursor.execute(post, (original,))
            call = threads.submit(lambda: ledger.batch([body]) if batched else ledger.post("/v1/movements", body))
            wait_until_blocked(ledger)
            other.commit()
        answer = call.result(timeout=60)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "already_reversed")
    ledger.assert_books_agree()


def test_withdrawals__of_the_same_money_by_many_at_once__are_as_many_as_there_is_money_for(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 50, "alice")
    bodies = [ledger.body("withdrawal", 10, "alice") for _ in range(20)]
    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(lambda body: ledger.post("/v1/movements", body).status_code, bodies))
    assert (statuses.count(201), statuses.count(409)) == (5, 15)
    assert ledger.buckets("alice") == (0, 0, 0, 0)
    ledger.assert_books_agree()


def test_first_deposits__of_one_new_user_by_many_at_once__all_arrive(ledger: LedgerHouse) -> None:
    bodies = [ledger.body("deposit", 3, "newcomer") for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(
            threads.map(
                lambda pair: ledger.batch([pair[1]]) if pair[0] % 2 else ledger.post("/v1/movements", pair[1]),
                enumerate(bodies),
            )
        )
    assert {answer.status_code for answer in answers} == {201}
    assert ledger.buckets("newcomer") == (48, 0, 0, 0)
    ledger.assert_books_agree()


def test_batches__that_share_names__are_posted_once(ledger: LedgerHouse) -> None:
    bodies = [ledger.body("deposit", 1, f"u{number % 5}") for number in range(40)]
    shuffled = [random.Random(seed).sample(bodies, 30) for seed in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        answers = [answer.get_json() for answer in threads.map(ledger.batch, shuffled)]
    names = {body["message_id"] for batch in shuffled for body in batch}
    assert sum(answer["posted"] for answer in answers) == len(names) == len(ledger.pages())
    assert all(answer["posted"] + answer["replayed"] == 30 for answer in answers)
    ledger.assert_books_agree()


def test_audits__many_at_once_while_others_write__are_all_clean(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 5, "alice")
    with ThreadPoolExecutor(8) as threads:
        writers = [threads.submit(ledger.move, "gas_float", 1) for _ in range(20)]
        audits = [threads.submit(ledger.differences) for _ in range(16)]
        assert {frozenset(audit.result(timeout=60)) for audit in audits} == {frozenset()}
        assert all(writer.result(timeout=60) for writer in writers)
    assert ledger.system() == {"@custody": -25, "@gas": 20}
    ledger.assert_books_agree()
