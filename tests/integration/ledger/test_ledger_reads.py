"""Lists whose cursors skip nothing, balances as of a time, sums and exports, while others are writing."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.ledger.kinds import SYSTEM_ACCOUNTS
from tests.support.ledger import BUCKETS, LedgerHouse, wait_until_blocked

SQL = "SELECT * FROM post_movement(%s, %s, 'eth_native', %s, %s, %s, %s, NULL, '')"


@contextmanager
def under_way(ledger: LedgerHouse, message_id: str, user: str | None, wei: int) -> Iterator[Callable[[], None]]:
    """A deposit (a gas float without a user) that has drawn its id and time and is not committed; gives its commit."""
    kind, target = ("deposit", "available") if user else ("gas_float", "@gas")
    with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute(SQL, (message_id, kind, user, "@custody", target, wei))
        yield other.commit


def in_background(work: Callable[[], Any]) -> Future[Any]:
    threads = ThreadPoolExecutor(1)
    future = threads.submit(work)
    threads.shutdown(wait=False)
    return future


@pytest.mark.parametrize("limit", [1, 2, 200])
def test_page__while_an_earlier_id_is_under_way__waits_and_holds_it(ledger: LedgerHouse, limit: int) -> None:
    ledger.move("deposit", 1, "alice")
    with under_way(ledger, "late", "bob", 2) as commit:
        ledger.move("deposit", 3, "carol")
        after = ledger.read("/v1/movements", limit=1)["next"]  # decided long ago: not a moment's wait
        assert after is not None
        reader = in_background(lambda: ledger.read("/v1/movements", limit=limit, after=after))
        wait_until_blocked(ledger)
        commit()
        items = reader.result(timeout=60)["items"]
    assert [item["message_id"] for item in items][:1] == ["late"]
    assert [item["amount_wei"] for item in ledger.pages(limit=limit)] == ["1", "2", "3"]


def test_page__that_would_pass_an_undecided_id_for_too_long__is_503(ledger: LedgerHouse) -> None:
    with under_way(ledger, "late", "bob", 2):
        ledger.move("deposit", 3, "carol")
        assert ledger.get("/v1/movements").status_code == 503
    assert len(ledger.pages()) == 1


def test_follower__while_eight_writers_post__meets_each_movement_once(ledger: LedgerHouse) -> None:
    per_writer = 25

    def write(writer: int) -> list[int]:
        ids = []
        for number in range(per_writer):
            if number % 5:
                ids.append(int(ledger.move("deposit", 1, f"u{writer}", message_id=f"w:{writer}:{number}")["id"]))
            else:
                rows = [ledger.body("deposit", 1, f"u{n}", message_id=f"b:{writer}:{number}:{n}") for n in range(20)]
                answer = ledger.batch(rows).get_json()
                ids.extend(range(answer["last_id"], answer["last_id"] + 1))
        return ids

    seen: list[int] = []
    with ThreadPoolExecutor(8) as threads:
        writers = [threads.submit(write, writer) for writer in range(8)]
        after = None
        while True:
            done = all(writer.done() for writer in writers)
            answer = ledger.read("/v1/movements", limit=7, after=after)
            if answer["next"] is not None:
                seen.extend(item["id"] for item in answer["items"])
                after = answer["next"]
            elif done:
                seen.extend(item["id"] for item in answer["items"])
                break
        written = {made for writer in writers for made in writer.result()}
    everything = [row[0] for row in ledger.sql("SELECT id FROM movements ORDER BY id")]
    assert seen == everything
    assert written <= set(seen)
    assert len(seen) == 8 * (20 + 5 * 20)


def test_balance_at__of_each_movement_of_eight_writers__is_the_chain_up_to_it(ledger: LedgerHouse) -> None:
    def write(writer: int) -> None:
        for number in range(8):
            ledger.move("deposit", writer + 1, "alice", message_id=f"w:{writer}:{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    total = 0
    for item in ledger.pages(user_id="alice"):
        total += int(item["amount_wei"])
        balance = ledger.read("/v1/balances/alice", at=item["created_at"])
        assert (balance["available_wei"], balance["last_movement_id"]) == (str(total), item["id"])
        assert balance["as_of"] == item["created_at"]


@pytest.mark.parametrize("known", [True, False])
def test_balance_at__while_a_posting_of_that_time_is_under_way__waits_for_it(
    ledger: LedgerHouse, *, known: bool
) -> None:
    if known:
        ledger.move("deposit", 1, "alice")
    with under_way(ledger, "late", "alice", 5) as commit:
        (moment,) = ledger.sql("SELECT clock_timestamp()")[0]
        at = moment.astimezone(UTC).isoformat()
        reader = in_background(lambda: ledger.buckets("alice", at=at))
        wait_until_blocked(ledger)
        commit()
        assert reader.result(timeout=60) == (6 if known else 5, 0, 0, 0)
    assert ledger.buckets("alice", at=at) == (6 if known else 5, 0, 0, 0)


def test_balance__while_a_posting_is_under_way__speaks_for_the_time_before_it(ledger: LedgerHouse) -> None:
    first = ledger.move("deposit", 1, "alice")
    with under_way(ledger, "late", "alice", 5) as commit:
        balance = ledger.read("/v1/balances/alice")
        assert (balance["available_wei"], balance["as_of"]) == ("1", first["created_at"])
        assert ledger.read("/v1/balances")["items"] == [balance]
        commit()
    assert ledger.read("/v1/balances/alice", at=balance["as_of"]) == balance


def test_balance_at__a_time_to_come__speaks_for_now(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 1, "alice")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    balance = ledger.read("/v1/balances/alice", at=tomorrow.isoformat())
    assert balance["available_wei"] == "1"
    assert datetime.fromisoformat(balance["as_of"]) < tomorrow - timedelta(hours=1)


def test_balance_at__before_the_first_movement__is_zero(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 1, "alice")
    assert ledger.buckets("alice", at="2020-01-01T00:00:00Z") == (0, 0, 0, 0)
    assert ledger.read("/v1/balances/nobody", at="2020-01-01T00:00:00Z")["last_movement_id"] is None


def test_time_of_movements__when_the_clock_goes_back__goes_on(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 1, "alice")
    ledger.sql(
        "ALTER TABLE balances DISABLE TRIGGER forward_only; "
        "UPDATE balances SET updated_at = now() + interval '1 hour'; "
        "ALTER TABLE balances ENABLE ALWAYS TRIGGER forward_only"
    )
    (ahead,) = ledger.sql("SELECT updated_at FROM balances")[0]
    single = ledger.move("deposit", 1, "alice")
    assert datetime.fromisoformat(single["created_at"]) == ahead + timedelta(microseconds=1)
    assert ledger.batch([ledger.body("deposit", 1, "alice"), ledger.body("deposit", 1, "bob")]).status_code == 201
    assert {row["created_at"] for row in ledger.pages()[-2:]} == {
        (ahead + timedelta(microseconds=2)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    }


def test_totals__while_others_write__are_zero_in_every_answer(ledger: LedgerHouse) -> None:
    def write(writer: int) -> None:
        for number in range(30):
            ledger.move("deposit", 3, f"u{writer}", message_id=f"w:{writer}:{number}")

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, writer) for writer in range(3)]
        while not all(writer.done() for writer in writers):
            assert ledger.read("/v1/totals")["sum_wei"] == "0"
    assert ledger.read("/v1/totals")["available_wei"] == "270"
    assert ledger.system() == {"@custody": -270}


def test_totals__from_a_checkpoint__are_those_from_the_beginning(ledger: LedgerHouse) -> None:
    for number in range(3):
        ledger.move("deposit", 10, "alice")
        ledger.move("gas_float", 4)
        ledger.move("reward_drop", 2)
        ledger.move("deposit", 100, "alice", pool_id="other")
        ledger.assert_books_agree()
        assert set(ledger.read("/v1/totals")["system"]) == set(SYSTEM_ACCOUNTS)
        assert ledger.system() == {
            "@custody": -14 * (number + 1),
            "@gas": 4 * (number + 1),
            "@lido": 2 * (number + 1),
            "@rewards": -2 * (number + 1),
        }
    assert ledger.sql("SELECT count(DISTINCT through_id) FROM system_checkpoints") == [(3,)]


def test_export__in_either_layout__is_the_table_and_the_pages(ledger: LedgerHouse) -> None:
    for number in range(12):
        ledger.move("deposit", 2**200 + number, f"u{number % 3}", reference='a "quoted", ü\nreference')
    ledger.move("gas_float", 1)
    pages = ledger.pages(limit=5)
    lines = ledger.get("/v1/exports/movements").get_data(as_text=True).splitlines()
    assert [json.loads(line) for line in lines] == pages
    answer = ledger.get("/v1/exports/movements", format="csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True), newline="")))
    assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in pages]
    mine = ledger.get("/v1/exports/movements", user_id="u1", kind="deposit").get_data(as_text=True).splitlines()
    assert [json.loads(line) for line in mine] == ledger.pages(user_id="u1")
    assert len(rows) == ledger.sql("SELECT count(*) FROM movements")[0][0] == 13


def test_export__of_more_than_one_portion__holds_each_movement_once(
    ledger: LedgerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.ledger.reads.EXPORT_PAGE", 3)
    assert ledger.batch([ledger.body("deposit", 1, f"u{n}") for n in range(10)]).status_code == 201
    lines = ledger.get("/v1/exports/movements").get_data(as_text=True).splitlines()
    assert [json.loads(line) for line in lines] == ledger.pages()


def test_export__while_a_posting_is_under_way__waits_for_it(ledger: LedgerHouse) -> None:
    with under_way(ledger, "late", None, 2) as commit:
        ledger.move("deposit", 3, "carol")
        reader = in_background(lambda: ledger.get("/v1/exports/movements").get_data(as_text=True))
        wait_until_blocked(ledger)
        commit()
        assert len(reader.result(timeout=60).splitlines()) == 2


def test_balances__listed__come_by_user_with_cursors(ledger: LedgerHouse) -> None:
    names = ["Zoe", "alice", "bob", "b.b", "a|1", "0x1"]
    for name in names:
        ledger.move("deposit", 1, name)
    seen: list[str] = []
    after = None
    while True:
        answer = ledger.read("/v1/balances", limit=2, after=after)
        seen.extend(item["user_id"] for item in answer["items"])
        after = answer["next"]
        if after is None:
            break
    assert seen == sorted(names)
    assert set(BUCKETS) < set(answer["items"][0])
