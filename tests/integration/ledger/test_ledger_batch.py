"""Batches: all or nothing, judged item by item in their order, and counted."""

import pytest

from tests.support.ledger import LedgerHouse

WRONG = ["NaN", "Infinity", "-Infinity", "1.0", "1e3", "0x1", "-0", "-1", "0", "007", "", " 1", "1\n", "٣", str(2**256)]


def test_batch__of_ten_thousand__is_posted_in_order(ledger: LedgerHouse) -> None:
    rows = [ledger.body("deposit", number + 1, f"u{number % 100}") for number in range(10_000)]
    answer = ledger.batch(rows)
    assert answer.status_code == 201
    body = answer.get_json()
    assert (body["posted"], body["replayed"]) == (10_000, 0)
    assert body["last_id"] - body["first_id"] == 9_999
    assert ledger.read(f"/v1/movements/{rows[0]['message_id']}")["id"] == body["first_id"]
    again = ledger.batch(rows)
    assert (again.status_code, again.headers["Idempotent-Replay"]) == (200, "true")
    assert again.get_json() == {"posted": 0, "replayed": 10_000, "first_id": None, "last_id": None}
    ledger.assert_books_agree()
    assert ledger.read("/v1/totals")["available_wei"] == str(sum(range(10_001)))


def test_batch__partly_known__posts_the_rest_with_201(ledger: LedgerHouse) -> None:
    known = ledger.body("deposit", 1, "alice")
    assert ledger.post("/v1/movements", known).status_code == 201
    answer = ledger.batch([known, ledger.body("deposit", 2, "alice")])
    assert answer.status_code == 201
    assert "Idempotent-Replay" not in answer.headers
    assert (answer.get_json()["posted"], answer.get_json()["replayed"]) == (1, 1)
    assert ledger.buckets("alice") == (3, 0, 0, 0)


def test_batch__with_a_refused_item__applies_nothing_and_uses_up_no_name(ledger: LedgerHouse) -> None:
    rows = [ledger.body("deposit", 5, "alice"), ledger.body("withdrawal", 6, "alice")]
    answer = ledger.batch(rows)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "insufficient_balance")
    assert answer.get_json()["detail"] == "User alice lacks 1 wei in available."
    assert ledger.pages() == []
    ledger.move("deposit", 1, "alice")
    assert ledger.batch(rows).status_code == 201
    ledger.assert_books_agree()


def test_batch__with_an_item_refused_before__is_that_refusal(ledger: LedgerHouse) -> None:
    refused = ledger.body("withdrawal", 6, "alice")
    assert ledger.post("/v1/movements", refused).status_code == 409
    answer = ledger.batch([ledger.body("deposit", 50, "alice"), refused])
    assert (answer.status_code, answer.get_json()["code"]) == (409, "insufficient_balance")
    assert ledger.pages() == []


def test_batch__that_spends_before_it_earns__is_refused_as_one_by_one(ledger: LedgerHouse) -> None:
    spend, earn = ledger.body("withdrawal", 5, "alice"), ledger.body("deposit", 5, "alice")
    assert ledger.batch([spend, earn]).status_code == 409
    assert ledger.batch([earn, spend]).status_code == 201
    assert ledger.buckets("alice") == (0, 0, 0, 0)


def test_batch__with_two_items_to_refuse__names_the_first(ledger: LedgerHouse) -> None:
    lacking, groundless = ledger.body("withdrawal", 5, "alice"), ledger.body("reversal", 5, "alice", reference="none")
    assert ledger.batch([lacking, groundless]).get_json()["code"] == "insufficient_balance"
    assert ledger.batch([groundless, lacking]).get_json()["code"] == "not_reversible"


def test_batch__with_one_name_twice__is_422(ledger: LedgerHouse) -> None:
    row = ledger.body("deposit", 5, "alice")
    assert ledger.batch([row, row]).get_json()["code"] == "invalid_input"


def test_batch__with_a_reversal_of_its_own__nets_out_once(ledger: LedgerHouse) -> None:
    row = ledger.body("deposit", 5, "alice")
    back = ledger.body("reversal", 5, "alice", reference=row["message_id"])
    assert ledger.batch([back, row]).get_json()["code"] == "not_reversible"
    assert ledger.batch([row, back]).status_code == 201
    twice = ledger.body("reversal", 5, "alice", reference=row["message_id"])
    assert ledger.batch([twice]).get_json()["code"] == "already_reversed"
    assert ledger.buckets("alice") == (0, 0, 0, 0)
    ledger.assert_books_agree()


def test_reversal__of_a_movement__restores_balances_and_is_itself_final(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 9, "alice")
    taken = ledger.move("stake_reserve", 4, "alice")
    back = ledger.move("reversal", 4, "alice", reference=taken["message_id"])
    assert ledger.buckets("alice") == (9, 0, 0, 0)
    for reference, wei in ((back["message_id"], 4), ("nothing", 4), (taken["message_id"], 3)):
        answer = ledger.post("/v1/movements", ledger.body("reversal", wei, "alice", reference=reference))
        assert (answer.status_code, answer.get_json()["code"]) == (409, "not_reversible")
    ledger.assert_books_agree()


@pytest.mark.parametrize("amount", [*WRONG, 1, 1.0, True, None, 2**60, ["1"]])
def test_amount__that_is_no_positive_wei_string__is_422_everywhere(ledger: LedgerHouse, amount: object) -> None:
    row = {**ledger.body("deposit", 1, "alice"), "amount_wei": amount}
    for answer in (ledger.post("/v1/movements", row), ledger.batch([row])):
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")
        assert any("amount_wei" in name for name in answer.get_json()["errors"])
    assert ledger.pages() == []


def test_user__missing_or_too_many__is_422(ledger: LedgerHouse) -> None:
    for row in (ledger.body("deposit", 1), ledger.body("gas_float", 1, "alice"), ledger.body("deposit", 1, "@gas")):
        assert ledger.post("/v1/movements", row).status_code == 422
        assert ledger.batch([row]).status_code == 422


@pytest.mark.parametrize("reference", ["", "\0", "a\0b", "\ud800", "x" * 201, 5])
def test_reference__that_cannot_be_kept__is_422(ledger: LedgerHouse, reference: object) -> None:
    row = {**ledger.body("deposit", 1, "alice"), "reference": reference}
    for answer in (ledger.post("/v1/movements", row), ledger.batch([row])):
        assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("path", ["/v1/movements", "/v1/balances", "/v1/audits"])
def test_cursor__that_nobody_gave__is_422(ledger: LedgerHouse, path: str) -> None:
    assert ledger.get(path, after="\0").status_code == 422


def test_movement__of_a_name_that_cannot_be__is_404(ledger: LedgerHouse) -> None:
    assert ledger.get("/v1/movements/a%00b").status_code == 404
    assert ledger.get("/v1/movements/nothing").get_json()["code"] == "not_found"


def test_batch__names_that_an_array_would_take_for_something_else__are_themselves(ledger: LedgerHouse) -> None:
    names = ["NULL", "null", "a|b+c=d", "a:b@c", "a-b"]
    rows = [
        ledger.body("deposit", 7, name, message_id=f"of:{number}", reference=name) for number, name in enumerate(names)
    ]
    answer = ledger.batch(rows)
    assert answer.status_code == 201, answer.get_json()
    found = [(row["message_id"], row["user_id"], row["reference"]) for row in ledger.pages()]
    assert found == [(f"of:{number}", name, name) for number, name in enumerate(names)]
    assert ledger.batch(rows).get_json()["replayed"] == len(names)
    ledger.assert_books_agree()
