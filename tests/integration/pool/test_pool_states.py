"""The pool's rows against their own tables' owner: what may follow a status is held by the database too.

The attack that this stops: a completed stake set back to `queued` by SQL was submitted to Lido a second time, with other
users' ETH, and the walk then stood still for everybody.
"""

from collections.abc import Iterator

import psycopg2
import psycopg2.extensions
import pytest

from apps.common.wei import ETHER
from apps.common.wire import new_id
from apps.pool.states import (
    BATCH_TERMINAL,
    REQUEST_TERMINAL,
    BatchKind,
    BatchStatus,
    RequestKind,
    RequestStatus,
    batch_transitions,
    request_transitions,
)
from tests.support.pool import PoolHouse
from tests.support.protocols import POOL

REFUSED = "ST001"
KEPT = "AO001"
REPLICA = "SET LOCAL session_replication_role = replica"

Connection = psycopg2.extensions.connection


@pytest.fixture
def owner(house: PoolHouse) -> Iterator[Connection]:
    """The owner of the pool's tables, in a transaction that nothing remains of."""
    url = house.context.settings.database_url.replace("postgresql+psycopg2", "postgresql")
    connection = psycopg2.connect(url)
    yield connection
    connection.rollback()
    connection.close()


def a_request(owner: Connection, kind: str, status: str) -> str:
    made = new_id()
    with owner.cursor() as cursor:
        cursor.execute(
            "INSERT INTO requests (id, message_id, body, kind, pool_id, user_id, amount_wei, status)"
            " VALUES (%s, %s, '{}', %s, %s, 'ann', %s, %s)",
            (made, f"m-{made}", kind, POOL, ETHER, status),
        )
    return made


def a_batch(owner: Connection, kind: str, status: str) -> str:
    made = new_id()
    with owner.cursor() as cursor:
        cursor.execute(
            "INSERT INTO batches (id, kind, pool_id, amount_wei, request_count, status) VALUES (%s, %s, %s, %s, 1, %s)",
            (made, kind, POOL, ETHER, status),
        )
    return made


def refusal(owner: Connection, statement: str, *, replica: bool = False) -> tuple[str, str] | None:
    """SQLSTATE and rule that a statement is refused by, or None where it is taken; what it did is undone."""
    with owner.cursor() as cursor:
        cursor.execute("SAVEPOINT before")
        try:
            if replica:
                cursor.execute(REPLICA)
            cursor.execute(statement)
        except psycopg2.DatabaseError as error:
            return str(error.pgcode), str(error.diag.constraint_name)
        finally:
            cursor.execute("ROLLBACK TO SAVEPOINT before")
    return None


@pytest.mark.parametrize("kind", RequestKind)
def test_request__every_pair_of_statuses__taken_or_refused_as_the_table_says(
    owner: Connection, kind: RequestKind
) -> None:
    for status in RequestStatus:
        row = a_request(owner, kind, status)
        following = request_transitions().get((kind, status), frozenset())
        for wanted in RequestStatus:
            found = refusal(owner, f"UPDATE requests SET status = '{wanted}' WHERE id = '{row}'")
            if wanted == status or wanted in following:
                assert found is None, (status, wanted)
            else:
                rule = "requests_end" if status in REQUEST_TERMINAL else "requests_transition"
                assert found == (REFUSED, rule), (status, wanted)


@pytest.mark.parametrize("kind", BatchKind)
def test_batch__every_pair_of_statuses__taken_or_refused_as_the_table_says(owner: Connection, kind: BatchKind) -> None:
    for status in BatchStatus:
        row = a_batch(owner, kind, status)
        following = batch_transitions().get((kind, status), frozenset())
        for wanted in BatchStatus:
            found = refusal(owner, f"UPDATE batches SET status = '{wanted}' WHERE id = '{row}'")
            if wanted == status or wanted in following:
                assert found is None, (status, wanted)
            else:
                rule = "batches_end" if status in BATCH_TERMINAL else "batches_transition"
                assert found == (REFUSED, rule), (status, wanted)


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize(
    "change",
    ["status = 'queued'", "amount_wei = 1", "settled_wei = 1", "batch_id = NULL, reason = '{}'", "next_run_at = now()"],
)
def test_request__completed__no_change_is_taken_from_its_owner(
    owner: Connection, change: str, *, replica: bool
) -> None:
    row = a_request(owner, "stake", "completed")
    statement = f"UPDATE requests SET {change} WHERE id = '{row}'"
    assert refusal(owner, statement, replica=replica) == (REFUSED, "requests_end")


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize("change", ["status = 'batched'", "amount_wei = 1", "next_run_at = now()", "funded = true"])
def test_batch__completed__no_change_is_taken_from_its_owner(owner: Connection, change: str, *, replica: bool) -> None:
    row = a_batch(owner, "stake", "completed")
    statement = f"UPDATE batches SET {change} WHERE id = '{row}'"
    assert refusal(owner, statement, replica=replica) == (REFUSED, "batches_end")


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize(
    "change", ["user_id = 'bob'", "kind = 'unstake'", "message_id = 'other'", "pool_id = 'other'", "body = '[]'"]
)
def test_request__what_was_asked_for__never_changes(owner: Connection, change: str, *, replica: bool) -> None:
    row = a_request(owner, "stake", "queued")
    statement = f"UPDATE requests SET {change} WHERE id = '{row}'"
    assert refusal(owner, statement, replica=replica) == (REFUSED, "requests_identity")


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM requests",
        "DELETE FROM batches",
        "TRUNCATE requests CASCADE",
        "UPDATE unsigned_transactions SET value_wei = 1",
        "DELETE FROM unsigned_transactions",
        "UPDATE batch_elements SET amount_wei = 1",
    ],
)
def test_pool_rows__removed_or_rebuilt_by_their_owner__refused(
    owner: Connection, statement: str, *, replica: bool
) -> None:
    batch = a_batch(owner, "unstake", "requesting")
    request = a_request(owner, "unstake", "requesting")
    with owner.cursor() as cursor:
        cursor.execute(
            "INSERT INTO unsigned_transactions (message_id, batch_id, from_address, to_address, data, value_wei, gas_limit)"
            " VALUES ('m', %s, '0x1', '0x2', '0x', 5, 21000)",
            (batch,),
        )
        cursor.execute("INSERT INTO batch_elements VALUES (%s, 0, %s, 5)", (batch, request))
    found = refusal(owner, statement, replica=replica)
    assert found is not None
    assert found[0] == KEPT


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("unnumbered_events", "request_id, status", "'{}', 'queued'"),
        ("request_events", "sequence, request_id, status", "1000001, '{}', 'queued'"),
    ],
)
def test_event__of_a_request_that_there_is_none_of__refused(
    owner: Connection, table: str, columns: str, values: str, *, replica: bool
) -> None:
    """Among others that are right, and whoever asks."""
    known, unknown = (values.format(name) for name in (a_request(owner, "stake", "queued"), new_id()))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({known}), ({unknown.replace('1000001', '1000002')})"
    assert refusal(owner, statement, replica=replica) == ("23503", "known_request")
    assert refusal(owner, f"INSERT INTO {table} ({columns}) VALUES ({known})", replica=replica) is None


def test_request__moves_with_its_batch__no_index_is_written(owner: Connection) -> None:
    """What an index knows of a request does not change with the moves of its batch: PostgreSQL then leaves all of them as they
    are, where the row's page has room."""
    batch, request = a_batch(owner, "stake", "batched"), a_request(owner, "stake", "queued")
    with owner.cursor() as cursor:
        cursor.execute("UPDATE requests SET status = 'batched', batch_id = %s WHERE id = %s", (batch, request))
        for moves, status in enumerate(("submitting", "confirming", "completed"), 1):
            cursor.execute("UPDATE requests SET status = %s, updated_at = now() WHERE id = %s", (status, request))
            cursor.execute("SELECT n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'requests'")
            assert cursor.fetchone() == (moves,), status
