"""Rows of the release that kept what a flow knows in a JSON `context`: migrated to columns with nothing lost, and back."""

import json

import psycopg2
import pytest

from migrations import runner
from tests.support.postgres import Server

TRANSACTION = {"from": "0xaa", "to": "0xbb", "data": "0x01", "value_wei": str(2**200), "gas_limit": 150000}
BATCH = {
    "parked_status": "requesting",
    "settlement": 3,
    "short_wei": 7,
    "transactions": {"unstake-batch:b1:request:1": TRANSACTION, "unstake-batch:b1:approve:1": TRANSACTION},
    "elements": [{"reference": "r1", "amount_wei": "100"}, {"reference": "r1", "amount_wei": str(10**21)}],
}
STAKE = {"funded": True, "reused_wei": "5"}
REQUEST = {
    "parked_status": "requesting",
    "reservation": 4,
    "requeues": 2,
    "at_most": 8,
    "hold": {"since": 1700000000.5, "aside": "12", "left": "34"},
    "expected_at": "2026-01-31T12:00:00.250000Z",
}
WALK = {
    "refusals": 2,
    "reward_since_snapshot": "-9",
    "pending": {
        "block": 12,
        "block_hash": "0xcc",
        "step": "-3",
        "state": {"total_pooled_ether_wei": "11", "total_shares": "10", "share_rate": str(10**27)},
    },
}


@pytest.fixture
def url(postgres: Server) -> str:
    made = postgres.create("pool_of_before")
    runner.upgrade("pool", made, "0003")
    rows = (
        ("INSERT INTO batches (id, kind, pool_id, amount_wei, request_count, status, context) VALUES"
         " ('b1', 'unstake', 'p', 1, 1, 'needs_attention', %s), ('b2', 'stake', 'p', 1, 1, 'batched', %s),"
         " ('b3', 'stake', 'p', 1, 1, 'completed', '{}')", (json.dumps(BATCH), json.dumps(STAKE))),
        ("INSERT INTO requests (id, message_id, body, kind, pool_id, user_id, amount_wei, status, context) VALUES"
         " ('r1', 'm1', '{}', 'unstake', 'p', 'ann', 1, 'needs_attention', %s),"
         " ('r2', 'm2', '{}', 'stake', 'p', 'ann', 1, 'completed', '{}')", (json.dumps(REQUEST),)),
        ("INSERT INTO walks (id, status, context) VALUES ('p', 'walking', %s)", (json.dumps(WALK),)),
    )  # fmt: skip
    for statement, values in rows:
        run(made, statement, values)
    return made


def run(url: str, statement: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        found = cursor.fetchall() if cursor.description else []
    connection.close()
    return found


def test_context__rows_under_way__stand_in_columns_and_tables(url: str) -> None:
    runner.upgrade("pool", url)
    assert run(url, "SELECT id, parked_status, funded, reused_wei, settlement, short_wei FROM batches ORDER BY id") == [
        ("b1", "requesting", False, None, 3, 7),
        ("b2", None, True, 5, 1, 0),
        ("b3", None, False, None, 1, 0),
    ]
    columns = "message_id, batch_id, from_address, to_address, data, value_wei, gas_limit"
    stored = ("b1", "0xaa", "0xbb", "0x01", 2**200, 150000)
    assert run(url, f"SELECT {columns} FROM unsigned_transactions ORDER BY message_id") == [
        ("unstake-batch:b1:approve:1", *stored),
        ("unstake-batch:b1:request:1", *stored),
    ]
    assert run(url, "SELECT batch_id, position, request_id, amount_wei FROM batch_elements ORDER BY position") == [
        ("b1", 0, "r1", 100),
        ("b1", 1, "r1", 10**21),
    ]
    columns = "parked_status, reservation, requeues, at_most, hold_since, hold_aside, hold_left, extract(epoch FROM expected_at)"
    (request,) = run(url, f"SELECT {columns} FROM requests WHERE id = 'r1'")
    assert request == ("requesting", 4, 2, 8, 1700000000.5, 12, 34, pytest.approx(1769860800.25))
    columns = (
        "refusals, reward_since_snapshot_wei, closing_block, closing_block_hash, closing_step_wei, closing_share_rate"
    )
    assert run(url, f"SELECT {columns} FROM walks") == [(2, -9, 12, "0xcc", -3, 10**27)]


def test_context__up_and_down_again__is_what_it_was(url: str) -> None:
    runner.upgrade("pool", url)
    runner.downgrade("pool", url, "0003")
    both = run(url, "SELECT id, context FROM batches UNION ALL SELECT id, context FROM requests")
    found = {str(row_id): context for row_id, context in both}
    assert found == {"b1": BATCH, "b2": STAKE, "b3": {}, "r1": REQUEST, "r2": {}}
    assert run(url, "SELECT context FROM walks") == [(WALK,)]
