"""Statements as a BFF asks for them: pages put together, CSV that adds up, spans that make no sense refused."""

import csv
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from apps.common.wei import ETHER
from apps.common.wire import format_time
from apps.pool.reports import statement as reports
from tests.support.pool import FullHouse, full_house
from tests.support.protocols import POOL
from tests.support.raw import raw
from tests.support.reports import BUCKETS, check_statement

START = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def full(make_database: Callable[[str], str]) -> Iterator[FullHouse]:
    with full_house(make_database) as found:
        yield found


def stake(full: FullHouse, user_id: str, number: int) -> None:
    body = {"message_id": f"{user_id}:{number}", "user_id": user_id, "amount_wei": str(number + 1)}
    assert full.post("/v1/stakes", body).status_code == 201


def test_statement__of_more_than_a_page__adds_up(full: FullHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PAGE", 3)
    full.deposit("ann", ETHER)
    for number in range(7):
        stake(full, "ann", number)
    whole = check_statement(full.pool.context, "ann")
    assert [line.kind for line in whole.movements] == ["deposit", *["stake_reserve"] * 7]
    asked = full.get("/v1/requests", user_id="ann")["items"]
    assert {line.request_id for line in whole.movements[1:]} == {item["id"] for item in asked}


def test_statement__as_csv__re_adds_and_starts_no_formula(full: FullHouse) -> None:
    raw(full.ledger).post_movement("@SUM-1", "deposit", POOL, "bob", 5 * ETHER, f"0x{'ab' * 32}")
    raw(full.ledger).post_movement("-2", "withdrawal", POOL, "bob", ETHER)
    answer = full.client.get(
        "/v1/users/bob/statement", query_string={"from": START, "format": "csv"}, headers={"X-Internal-Key": "test-key"}
    )
    assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
    opening, *lines, closing = csv.DictReader(io.StringIO(answer.text))
    held = {name: int(opening[f"{name}_wei"]) for name in BUCKETS}
    for line in lines:
        for name in BUCKETS:
            held[name] += int(line["amount_wei"]) * ((line["to"] == name) - (line["from"] == name))
    assert (
        held
        == {name: int(closing[f"{name}_wei"]) for name in BUCKETS}
        == {**dict.fromkeys(BUCKETS, 0), "available": 4 * ETHER}
    )
    assert lines[0]["tx_hash"] == f"0x{'ab' * 32}"
    assert not [cell for line in lines for cell in line.values() if cell.startswith(("=", "+", "-", "@"))]


def test_statement__of_nobody__zeros(full: FullHouse) -> None:
    found = check_statement(full.pool.context, "nobody")
    assert (found.movements, found.days, found.apr) == ([], [], None)


@pytest.mark.parametrize(
    ("span", "field"),
    [
        ({}, "from"),
        ({"from": START, "to": START}, "from"),
        ({"from": "2020-01-01T00:00:00Z"}, "from"),
        ({"from": format_time(datetime.now(UTC) + timedelta(days=2))}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": START, "format": "pdf"}, "format"),
    ],
)
def test_statement__of_a_span_that_cannot_be__422_names_the_field(
    full: FullHouse, span: dict[str, str], field: str
) -> None:
    answer = full.client.get("/v1/users/ann/statement", query_string=span, headers={"X-Internal-Key": "test-key"})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, [field])


def test_lineage__of_nothing_known__404(full: FullHouse) -> None:
    for path in ("/v1/requests/none/lineage", f"/v1/transactions/0x{'0' * 64}/requests"):
        assert full.client.get(path, headers={"X-Internal-Key": "test-key"}).status_code == 404
    answer = full.client.get("/v1/transactions/0x12/requests", headers={"X-Internal-Key": "test-key"})
    assert (answer.status_code, list(answer.get_json()["errors"])) == (422, ["tx_hash"])


def test_lineage__of_a_queued_stake__its_reservation_and_no_batch(full: FullHouse) -> None:
    full.deposit("cat", ETHER)
    stake(full, "cat", 0)
    (request,) = full.get("/v1/requests", user_id="cat")["items"]
    found = full.get(f"/v1/requests/{request['id']}/lineage")
    assert [item["kind"] for item in found["movements"]] == ["stake_reserve"]
    assert found["batches"] == []
