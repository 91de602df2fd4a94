"""L19: the line cut around any statement, or the backend killed in the middle of one; the call again, and the books agree."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ledger import LedgerHouse, make_ledger
from tests.support.pgproxy import Fate, Proxy, let_pass, proxied


def cut_at(line: Proxy, number: int, fate: Fate) -> None:
    """Cut the line once, around the statement of this number from now."""
    left = [number]

    def decide(_statement: str) -> Fate:
        left[0] -= 1
        return fate if left[0] == -1 else Fate.PASS

    line.decide = decide


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.LOSE])
def test_movement__whose_line_is_cut__is_posted_once_without_the_caller_noticing(
    make_database: Callable[[str], str], fate: Fate
) -> None:
    with proxied(make_database("ledger")) as line:
        ledger = make_ledger(line.url)
        ledger.move("deposit", 5, "alice")
        body = ledger.body("stake_reserve", 3, "alice")
        cut_at(line, 0, fate)
        answer = ledger.post("/v1/movements", body)
        assert answer.status_code == (201 if fate is Fate.DROP else 200)
        again = ledger.post("/v1/movements", body)
        assert (again.status_code, again.data) == (200, answer.data)
        assert ledger.buckets("alice") == (2, 3, 0, 0)
        ledger.assert_books_agree()


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.LOSE])
def test_batch__whose_line_is_cut_around_each_statement__is_posted_once_by_the_call_again(
    make_database: Callable[[str], str], fate: Fate
) -> None:
    with proxied(make_database("ledger")) as line:
        ledger = make_ledger(line.url)
        ledger.move("deposit", 10**6, "alice")
        line.statements.clear()
        posted = ledger.move("gas_float", 1)
        assert ledger.batch([ledger.body("deposit", 1, "bob")]).status_code == 201
        statements = len(line.statements)
        lost = 0
        for number in range(statements):
            rows = [
                ledger.body("stake_reserve", 1, "alice"),
                ledger.body("deposit", 1, f"new-{number}"),
                ledger.body("deposit", 1, "bob"),
            ]
            if number == 0:
                rows.append(ledger.body("reversal", 1, reference=posted["message_id"]))
            cut_at(line, number, fate)
            first = ledger.batch(rows)
            line.decide = let_pass
            lost += first.status_code == 503
            again = ledger.batch(rows)
            assert again.status_code == (200 if first.status_code == 201 else again.status_code)
            assert again.get_json()["posted"] + again.get_json()["replayed"] == len(rows)
            assert ledger.buckets(f"new-{number}") == (1, 0, 0, 0)
        assert lost > 0
        assert ledger.buckets("alice") == (10**6 - statements, statements, 0, 0)
        assert ledger.buckets("bob") == (1 + statements, 0, 0, 0)
        ledger.assert_books_agree()


@pytest.mark.parametrize("batched", [False, True])
def test_posting__whose_backend_is_killed_half_way__is_posted_once(ledger: LedgerHouse, *, batched: bool) -> None:
    """Its key is taken and its balance waited for: the middle of the call, certainly."""
    ledger.move("deposit", 5, "alice")
    body = ledger.body("stake_reserve", 3, "alice")
    with ThreadPoolExecutor(1) as threads:
        with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
            cursor.execute("SELECT FROM balances WHERE user_id = 'alice' FOR UPDATE")
            call = threads.submit(lambda: ledger.batch([body]) if batched else ledger.post("/v1/movements", body))
            deadline = time.monotonic() + 60
            kill = (
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while ledger.sql(kill) == [(0,)]:
                assert time.monotonic() < deadline, "the posting never came to wait"
        answer = call.result(timeout=60)
    assert answer.status_code == (503 if batched else 201)
    assert ledger.buckets("alice") == ((5, 0, 0, 0) if batched else (2, 3, 0, 0))
    again = ledger.batch([body]) if batched else ledger.post("/v1/movements", body)
    assert again.status_code == (201 if batched else 200)
    assert ledger.buckets("alice") == (2, 3, 0, 0)
    ledger.assert_books_agree()


def test_movements__after_every_connection_of_the_pool_died__go_on(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 1, "alice")
    bodies = [ledger.body("deposit", 1, "alice") for _ in range(4)]
    name = ledger.sql("SELECT current_database()")[0]
    of_the_service = "FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    with ThreadPoolExecutor(4) as threads:
        with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
            cursor.execute("SELECT FROM balances WHERE user_id = 'alice' FOR UPDATE")
            calls = [threads.submit(ledger.post, "/v1/movements", body) for body in bodies]
            deadline = time.monotonic() + 60
            while ledger.sql(f"SELECT count(*) {of_the_service} AND wait_event_type = 'Lock'", name) != [(4,)]:
                assert time.monotonic() < deadline, "the postings never came to wait"
        assert [call.result(timeout=60).status_code for call in calls] == [201] * 4
    ledger.sql(f"SELECT pg_terminate_backend(pid) {of_the_service}", name)
    for _ in range(4):
        ledger.move("deposit", 1, "alice")
    ledger.assert_books_agree()
