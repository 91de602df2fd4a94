"""The books against whoever owns their tables: each attack is refused, or found by the audit, by name.

Three attackers: the owner; the owner with the guards dropped, whom the keys still refuse; and a superuser as replica,
for whom keys sleep and the guards do not.
"""

from collections.abc import Callable

import psycopg2
import pytest

from apps.common.append_only import NotAppendOnly
from apps.ledger import create_app
from migrations import runner
from tests.support.ledger import POOL, LedgerHouse, ledger_settings, make_ledger
from tests.support.postgres import Server

GUARDED = ("message_keys", "refusals", "movements", "system_checkpoints", "audits")
DROP_GUARDS = "; ".join(f"DROP TRIGGER append_only ON {table}" for table in GUARDED)
DROP_GUARDS += "; DROP TRIGGER kept ON balances; DROP TRIGGER forward_only ON balances"
REPLICA = "SET session_replication_role = replica"
NOBODY = ""

CHANGES = {
    "movement_edited": "UPDATE movements SET amount_wei = amount_wei + 1 WHERE message_id = 'm3'",
    "movement_deleted": "DELETE FROM movements WHERE message_id = 'm2'",
    "last_movement_deleted": "DELETE FROM movements WHERE message_id = 'm3'",
    "movements_truncated": "TRUNCATE movements",
    "movements_truncated_with_all_that_refer": "TRUNCATE movements CASCADE",
    "balance_forged": "UPDATE balances SET available_wei = available_wei + 1 WHERE user_id = 'alice'",
    "balance_moved_between_buckets": "UPDATE balances SET available_wei = 40, reserved_wei = 40 WHERE user_id = 'alice'",
    "balance_set_back": (
        "UPDATE balances b SET available_wei = m.available_wei, reserved_wei = m.reserved_wei, last_movement_id = m.id "
        "FROM movements m WHERE m.message_id = 'm2' AND b.user_id = 'alice'"
    ),
    "balance_given_to_another": "UPDATE balances SET user_id = 'mallory' WHERE user_id = 'alice'",
    "balance_deleted": "DELETE FROM balances WHERE user_id = 'alice'",
    "balances_truncated": "TRUNCATE balances",
    "key_deleted": "DELETE FROM message_keys WHERE message_id = 'm2'",
    "refusal_deleted": "DELETE FROM refusals",
    "checkpoint_edited": "UPDATE system_checkpoints SET sum_wei = sum_wei + 1",
    "audit_edited": "UPDATE audits SET ok = true",
}
COLUMNS = (
    "message_id, kind, pool_id, user_id, source, target, amount_wei, previous_id, available_wei, reserved_wei, "
    "staked_wei, unstaking_wei"
)
HEAD = "(SELECT id FROM movements WHERE message_id = 'm3')"
FORGED_MOVEMENTS = {
    "out_of_nothing": "'deposit', '@custody', 'available', 5, NULL, 5, 0, 0, 0",
    "balance_beyond_its_amount": f"'deposit', '@custody', 'available', 5, {HEAD}, 666, 40, 0, 0",
    "from_a_past_balance": (
        "'deposit', '@custody', 'available', 5, (SELECT id FROM movements WHERE message_id = 'm2'), 105, 0, 0, 0"
    ),
    "of_less_than_nothing": f"'deposit', '@custody', 'available', -5, {HEAD}, 55, 40, 0, 0",
    "of_nothing": f"'deposit', '@custody', 'available', 0, {HEAD}, 60, 40, 0, 0",
    "not_a_number": f"'deposit', '@custody', 'available', 'NaN', {HEAD}, 'NaN', 40, 0, 0",
    "of_half_a_wei": f"'deposit', '@custody', 'available', 0.5, {HEAD}, 60.5, 40, 0, 0",
    "endless": f"'deposit', '@custody', 'available', 'Infinity', {HEAD}, 'Infinity', 40, 0, 0",
    "below_zero": f"'withdrawal', 'available', '@payouts', 61, {HEAD}, -1, 40, 0, 0",
    "to_itself": f"'deposit', 'available', 'available', 5, {HEAD}, 60, 40, 0, 0",
}


def write_books(ledger: LedgerHouse) -> LedgerHouse:
    """Alice has 60 available and 40 reserved; one refusal, one clean audit."""
    ledger.move("deposit", 90, "alice", message_id="m1")
    ledger.move("deposit", 10, "alice", message_id="m2")
    ledger.move("stake_reserve", 40, "alice", message_id="m3")
    ledger.move("gas_float", 7, message_id="m4")
    assert ledger.post("/v1/movements", ledger.body("withdrawal", 61, "alice", message_id="r1")).status_code == 409
    ledger.assert_books_agree()
    return ledger


@pytest.fixture(scope="module")
def books(make_database: Callable[[str], str]) -> LedgerHouse:
    """For attacks that are refused, and leave it as it was."""
    return write_books(make_ledger(make_database("ledger")))


@pytest.fixture
def victim(ledger: LedgerHouse) -> LedgerHouse:
    """For attacks that succeed."""
    return write_books(ledger)


@pytest.mark.parametrize("role", [NOBODY, REPLICA])
@pytest.mark.parametrize("attack", CHANGES)
def test_change__by_the_owner__is_refused(books: LedgerHouse, attack: str, role: str) -> None:
    with pytest.raises(psycopg2.Error):
        books.sql(f"{role}; {CHANGES[attack]}")
    assert books.buckets("alice") == (60, 40, 0, 0)
    books.assert_books_agree()


@pytest.mark.parametrize(
    "attack",
    [
        "movement_edited",
        "movement_deleted",
        "last_movement_deleted",
        "movements_truncated",
        "balance_forged",
        "balance_moved_between_buckets",
        "balance_given_to_another",
    ],
)
def test_change__with_every_guard_dropped__is_refused_by_the_keys(books: LedgerHouse, attack: str) -> None:
    with pytest.raises(psycopg2.Error):
        books.sql(f"{DROP_GUARDS}; {CHANGES[attack]}")
    assert books.buckets("alice") == (60, 40, 0, 0)


@pytest.mark.parametrize("forgery", FORGED_MOVEMENTS)
def test_movement__that_does_not_continue_the_chain__is_refused(books: LedgerHouse, forgery: str) -> None:
    kind, rest = FORGED_MOVEMENTS[forgery].split(", ", 1)
    values = f"'forged', {kind}, '{POOL}', 'alice', {rest}"
    with pytest.raises(psycopg2.errors.IntegrityError):
        books.sql(f"INSERT INTO movements ({COLUMNS}) VALUES ({values})")
    books.assert_books_agree()


@pytest.mark.parametrize(
    ("attack", "found"),
    [
        ("movement_deleted", {("balance:eth_native:alice", "available_wei"), ("message:m2", "movements")}),
        ("last_movement_deleted", {("balance:eth_native:alice", "reserved_wei"), ("message:m3", "movements")}),
        ("movement_edited", {("balance:eth_native:alice", "reserved_wei"), ("movement:m3", "available_before")}),
        ("balance_forged", {("balance:eth_native:alice", "available_wei"), ("pool:eth_native", "sum_wei")}),
        ("balance_moved_between_buckets", {("balance:eth_native:alice", "available_wei")}),
        ("balance_set_back", {("balance:eth_native:alice", "last_movement_id")}),
        ("balance_given_to_another", {("balance:eth_native:mallory", "reserved_wei")}),
        ("balance_deleted", {("balance:eth_native:alice", "reserved_wei")}),
        ("key_deleted", {("movement:m2", "message_keys")}),
        ("refusal_deleted", {("message:r1", "movements")}),
        ("checkpoint_edited", {("account:eth_native:@gas", "sum_wei")}),
    ],
)
def test_change__with_guards_dropped_and_keys_asleep__is_found_by_the_audit(
    victim: LedgerHouse, attack: str, found: set[tuple[str, str]]
) -> None:
    victim.sql(f"{DROP_GUARDS}; {REPLICA}; {CHANGES[attack]}")
    assert found <= victim.differences()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE movements SET kind = 'unstake_start' WHERE message_id = 'm3'", ("movement:m3", "kind")),
        ("UPDATE movements SET message_id = 'm5' WHERE message_id = 'm4'", ("movement:m5", "message_keys")),
        (
            "UPDATE movements SET kind = 'reversal', reference = 'm1' WHERE message_id = 'm4'",
            ("movement:m4", "reference"),
        ),
        ("UPDATE refusals SET message_id = 'm4'", ("movement:m4", "refusals")),
        ("UPDATE movements SET previous_id = 999 WHERE message_id = 'm3'", ("movement:m3", "previous_id")),
    ],
)
def test_cross_reference__broken_with_everything_asleep__is_found_by_the_audit(
    victim: LedgerHouse, change: str, found: tuple[str, str]
) -> None:
    victim.sql(f"{DROP_GUARDS}; {REPLICA}; ALTER TABLE movements DROP CONSTRAINT ck_movements_chain; {change}")
    assert found in victim.differences()


@pytest.mark.parametrize("value", ["1.5", "'NaN'", "'Infinity'", "'-Infinity'", "-1", str(2**256), "1.0"])
def test_amount__that_is_no_wei__is_refused_by_its_type(ledger: LedgerHouse, value: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        ledger.sql(f"SELECT CAST({value} AS numeric)::wei")


def test_amount__of_the_largest_wei__comes_back_whole(ledger: LedgerHouse) -> None:
    assert ledger.move("deposit", 2**256 - 1, "whale")["amount_wei"] == str(2**256 - 1)
    assert ledger.buckets("whale") == (2**256 - 1, 0, 0, 0)
    assert ledger.sql(f"SELECT div({2**256 - 1}::numeric, 3), mod({2**256 - 1}::numeric, 3)") == [
        ((2**256 - 1) // 3, (2**256 - 1) % 3)
    ]
    one_more = ledger.post("/v1/movements", ledger.body("deposit", 1, "whale"))
    assert (one_more.status_code, one_more.get_json()["code"]) == (409, "balance_too_large")
    ledger.move("deposit", 2**256 - 1, "another")
    assert ledger.read("/v1/totals")["available_wei"] == str(2 * (2**256 - 1))
    ledger.assert_books_agree()


@pytest.mark.parametrize(
    "sabotage",
    [
        *(f"DROP TRIGGER append_only ON {table}" for table in GUARDED),
        "ALTER TABLE movements DISABLE TRIGGER append_only",
        "ALTER TABLE movements ENABLE TRIGGER append_only",  # no longer ALWAYS
        "ALTER TABLE movements ENABLE REPLICA TRIGGER append_only",
        "DROP TRIGGER kept ON balances",
        "ALTER TABLE balances ENABLE TRIGGER kept",
        "ALTER TABLE balances ENABLE TRIGGER forward_only",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    ],
)
def test_service__whose_database_accepts_changes__does_not_start(
    make_database: Callable[[str], str], sabotage: str
) -> None:
    url = make_database("ledger")
    ledger = make_ledger(url)  # starts on the sound one
    ledger.sql(sabotage)
    with pytest.raises(NotAppendOnly):
        create_app(ledger_settings(url))


def test_service__of_an_ordinary_owner__proves_it_and_posts(postgres: Server) -> None:
    """As in production: the role owns its database and is no superuser, so it may not even become a replica."""
    url = postgres.create("ordinary")
    name = url.rsplit("/", 1)[1]
    admin = psycopg2.connect(url, connect_timeout=10)
    with admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'ordinary'; ALTER DATABASE {name} OWNER TO {name}")
    admin.close()
    own = f"postgresql://{name}:ordinary@{url.split('@', 1)[1]}"
    runner.upgrade("ledger", own)
    ledger = make_ledger(own)
    ledger.move("deposit", 5, "alice")
    ledger.assert_books_agree()
    assert len(ledger.pages()) == 1
    ledger.sql("DROP TRIGGER kept ON balances")
    with pytest.raises(NotAppendOnly):
        make_ledger(own)


def test_service__that_starts_while_others_post__waits_for_nobody(ledger: LedgerHouse) -> None:
    ledger.move("deposit", 5, "alice")
    with ledger.connection(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("SELECT * FROM post_movement('x', 'gas_float', 'p', NULL, '@custody', '@gas', 5, NULL, '')")
        again = make_ledger(ledger.database_url)
        again.move("deposit", 5, "bob", message_id="again")


def test_service__without_a_database__starts_and_posts_nothing_before_the_proof(
    make_database: Callable[[str], str],
) -> None:
    url = make_database("ledger")
    house = make_ledger(url.replace("@127.0.0.1", "@127.0.0.2"))
    answer = house.post("/v1/movements", house.body("deposit", 5, "alice"))
    assert (answer.status_code, answer.get_json()["code"]) == (503, "append_only_unproven")
