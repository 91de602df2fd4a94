"""One message_id, one effect, one answer."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.support.ledger import LedgerHouse, make_ledger
from tests.support.pgproxy import proxied

REPLAY = "Idempotent-Replay"


def test_movement__posted_again__answers_the_same_bytes_with_200(ledger: LedgerHouse) -> None:
    body = ledger.body("deposit", 10**30, "alice", reference='tx "ü" \\')
    first = ledger.post("/v1/movements", body)
    again = ledger.post("/v1/movements", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers.get(REPLAY) is None
    assert again.headers[REPLAY] == "true"
    assert again.data == first.data
    assert ledger.buckets("alice") == (10**30, 0, 0, 0)


def test_movement__posted_alone_after_its_batch__answers_what_the_list_shows(ledger: LedgerHouse) -> None:
    body = ledger.body("deposit", 7, "alice")
    assert ledger.batch([body]).status_code == 201
    again = ledger.post("/v1/movements", body)
    assert again.status_code == 200
    assert [again.get_json()] == ledger.pages()


def test_refusal__asked_again_with_money_there_by_now__is_the_same_refusal(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 10, "alice")
    body = ledger.body("withdrawal", 11, "alice")
    first = ledger.post("/v1/movements", body)
    ledger.move("deposit", 100, "alice")
    again = ledger.post("/v1/movements", body)
    assert first.status_code == again.status_code == 409
    assert first.get_json()["code"] == "insufficient_balance"
    assert "lacks 1 wei in available" in first.get_json()["detail"]
    assert again.data == first.data
    assert (first.headers.get(REPLAY), again.headers[REPLAY]) == (None, "true")
    assert again.content_type == "application/problem+json"
    assert ledger.buckets("alice") == (110, 0, 0, 0)
    ledger.assert_books_agree()


def test_refusal__of_a_user_nobody_knows__leaves_no_balance_behind(ledger: LedgerHouse) -> None:
    answer = ledger.post("/v1/movements", ledger.body("stake_reserve", 5, "nobody"))
    assert answer.get_json()["detail"] == "User nobody lacks 5 wei in available."
    assert ledger.read("/v1/balances")["items"] == []


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"amount_wei": "6"}, {"amount_wei"}),
        ({"user_id": "bob"}, {"user_id"}),
        ({"kind": "withdrawal_cancel"}, {"kind"}),
        ({"reference": "r"}, {"reference"}),
        ({"pool_id": "other"}, {"pool_id"}),
        ({"amount_wei": "6", "user_id": "bob", "reference": "r"}, {"amount_wei", "user_id", "reference"}),
    ],
)
def test_message_id__with_another_body__is_422_and_names_the_fields(
    ledger: LedgerHouse, changes: dict[str, Any], fields: set[str]
) -> None:
    body = ledger.body("deposit", 5, "alice")
    assert ledger.post("/v1/movements", body).status_code == 201
    for answer in (
        ledger.post("/v1/movements", {**body, **changes}),
        ledger.batch([ledger.body("deposit", 1, "carol"), {**body, **changes}]),
    ):
        assert answer.status_code == 422
        assert answer.get_json()["code"] == "message_id_reused"
        assert set(answer.get_json()["errors"]) == fields
    assert len(ledger.pages()) == 1
    assert ledger.buckets("carol") == (0, 0, 0, 0)


def test_message_id__of_a_refusal_with_another_body__is_422(ledger: LedgerHouse) -> None:
    body = ledger.body("withdrawal", 5, "alice")
    assert ledger.post("/v1/movements", body).status_code == 409
    answer = ledger.post("/v1/movements", {**body, "amount_wei": "1"})
    assert (answer.status_code, set(answer.get_json()["errors"])) == (422, {"amount_wei"})


def test_pool_id__left_out_or_named_by_its_default__is_the_same_body(ledger: LedgerHouse) -> None:
    body = ledger.body("deposit", 5, "alice")
    assert ledger.post("/v1/movements", body).status_code == 201
    assert ledger.post("/v1/movements", {**body, "pool_id": "eth_native", "reference": None}).status_code == 200


def test_twins__fifty_at_once__make_one_movement_and_one_answer(ledger: LedgerHouse) -> None:
    body = ledger.body("deposit", 5, "alice")
    start = threading.Barrier(50)

    def call(_number: int) -> TestResponse:
        start.wait(timeout=60)
        return ledger.post("/v1/movements", body)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(call, range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.data for answer in answers}) == 1
    assert len(ledger.pages()) == 1
    assert ledger.buckets("alice") == (5, 0, 0, 0)


def test_twins__fifty_refused_at_once__are_one_refusal(ledger: LedgerHouse) -> None:
    body = ledger.body("withdrawal", 5, "alice")
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: ledger.post("/v1/movements", body), range(50)))
    assert {answer.status_code for answer in answers} == {409}
    assert len({answer.data for answer in answers}) == 1
    assert sum(1 for answer in answers if answer.headers.get(REPLAY) is None) == 1


@pytest.mark.parametrize("batched", [False, True])
def test_twin__still_under_way_after_five_seconds__is_told_so(ledger: LedgerHouse, *, batched: bool) -> None:
    body = ledger.body("deposit", 5, "alice")
    with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("INSERT INTO message_keys (message_id) VALUES (%s)", (body["message_id"],))
        answer = ledger.batch([body]) if batched else ledger.post("/v1/movements", body)
        assert (answer.status_code, answer.get_json()["code"]) == (409, "in_progress")
        assert answer.headers["Retry-After"] == "1"
    assert ledger.post("/v1/movements", body).status_code == 201


def test_wait__for_a_balance_and_not_for_a_twin__is_503_and_uses_up_nothing(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 5, "alice")
    body = ledger.body("deposit", 5, "alice")
    with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("SELECT FROM balances WHERE user_id = 'alice' FOR UPDATE")
        answer = ledger.post("/v1/movements", body)
        assert (answer.status_code, answer.get_json()["code"]) == (503, "database_unavailable")
    assert ledger.post("/v1/movements", body).status_code == 201


def test_single_movement__however_it_ends__is_one_statement(make_database: Callable[[str], str]) -> None:
    with proxied(make_database("ledger")) as line:
        ledger = make_ledger(line.url)
        known = ledger.body("deposit", 5, "alice")
        assert ledger.post("/v1/movements", known).status_code == 201  # connects
        refused = ledger.body("withdrawal", 50, "alice")
        gas = ledger.body("gas_float", 1)
        reversal = ledger.body("reversal", 1, reference=gas["message_id"])
        for body in (ledger.body("deposit", 5, "new"), known, refused, refused, gas, reversal, reversal):
            line.statements.clear()
            ledger.post("/v1/movements", body)
            assert len(line.statements) == 1, line.statements
            assert "post_movement" in line.statements[0]
        ledger.assert_books_agree()


def test_batch__of_any_size__is_the_same_few_statements(make_database: Callable[[str], str]) -> None:
    with proxied(make_database("ledger")) as line:
        ledger = make_ledger(line.url)
        counts = []
        for size in (1, 500):
            line.statements.clear()
            assert ledger.batch([ledger.body("deposit", 5, f"u{n}") for n in range(size)]).status_code == 201
            counts.append(len(line.statements))
        assert counts[1] <= counts[0] <= 40  # the first call also connects and proves append-only
