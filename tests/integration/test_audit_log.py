"""The audit log on real databases: one pool for all tests here, and a database of each other service that has ops calls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from flask.testing import FlaskClient
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from structlog.testing import capture_logs

from apps.common.append_only import NotAppendOnly
from apps.common.auth import HEADER
from apps.common.database import transaction
from apps.common.keys import Scope, key_line
from apps.common.settings import normalise_database_url
from apps.ledger import create_app as create_ledger
from apps.ledger.settings import LedgerSettings
from apps.pool.models import Walk
from apps.rewards import create_app as create_rewards
from relayer.store.models import Signer
from tests.support.pool import PoolHouse, pool_house
from tests.support.protocols import POOL
from tests.support.relayer import CHAIN_ID, OPERATOR, Node, make_house
from tests.support.rewards import KEY as REWARDS_KEY
from tests.support.rewards import make_settings as reward_settings

READ_OPS, READ_WRITE = [Scope.READ, Scope.OPS], [Scope.READ, Scope.WRITE]
HALT = {
    "code": "foreign_out", "detail": "3 shares left.", "block_number": 7, "log_index": 2, "tx_hash": "0xaa",
    "kind": "foreign_out", "shares": "3", "amount_wei": "4", "effect": None,
}  # fmt: skip
SAID: dict[str, Any] = {
    "action": "book_loss", "code": "foreign_out", "block_number": 7, "log_index": 2, "account": "@fees", "why": "seen",
}  # fmt: skip


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Olga and Paul are ops, the BFF is not; each key is its owner's name."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    people = {"olga": READ_OPS, "paul": READ_OPS, "bff": READ_WRITE, "both": list(Scope)}
    path.write_text("\n".join(key_line(name, name, scopes) for name, scopes in people.items()))
    return path


@pytest.fixture(scope="module")
def pool(make_database: Callable[[str], str], keys_file: Path) -> PoolHouse:
    return pool_house(make_database("pool"), api_keys_file=keys_file, ops_four_eyes=True)


@pytest.fixture(scope="module")
def client(pool: PoolHouse) -> FlaskClient:
    return pool.client()


@pytest.fixture
def parked(pool: PoolHouse) -> str:
    (request_id,) = pool.queue_stakes([1], status="needs_attention", parked_status="queued", queued_at=None)
    return request_id


@pytest.fixture
def broken_by(pool: PoolHouse) -> Iterator[Callable[[str], None]]:
    """Have the database refuse entries, until the test has ended."""

    def refuse(condition: str) -> None:
        run(pool, f"ALTER TABLE audit_log ADD CONSTRAINT broken CHECK (NOT ({condition})) NOT VALID")

    yield refuse
    run(pool, "ALTER TABLE audit_log DROP CONSTRAINT IF EXISTS broken")


def run(pool: PoolHouse, statement: str) -> None:
    connection = psycopg2.connect(pool.context.settings.database_url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def call(client: FlaskClient, key: str, path: str, body: Any = None) -> Any:
    return client.post(path, json=body, headers={HEADER: key, "X-Request-Id": f"call-of-{key}"})


def entries(client: FlaskClient, **query: Any) -> list[dict[str, Any]]:
    """Oldest first."""
    answer = client.get("/v1/audit-log", query_string=query, headers={HEADER: "both"})
    assert answer.status_code == 200, answer.get_json()
    return list(reversed(answer.get_json()["items"]))


def status_of(client: FlaskClient, request_id: str) -> str:
    return str(client.get(f"/v1/requests/{request_id}", headers={HEADER: "bff"}).get_json()["status"])


def test_ops_call__done__attempt_and_change_are_written_with_who_what_before_and_after(
    client: FlaskClient, parked: str
) -> None:
    with capture_logs() as logged:
        assert call(client, "olga", f"/v1/requests/{parked}/retry").status_code == 200
    told = [(entry["who"], entry["outcome"]) for entry in logged if entry["event"] == "ops_call"]
    assert told == [("olga", "attempted"), ("olga", "done")]
    attempted, done = entries(client, subject=f"request:{parked}")
    for entry in (attempted, done):
        assert (entry["who"], entry["request_id"]) == ("olga", "call-of-olga")
        assert entry["what"] == "POST /v1/requests/<request_id>/retry"
    assert (attempted["outcome"], done["outcome"], done["attempt_id"]) == ("attempted", "done", attempted["id"])
    row = f"requests {parked}"
    assert (done["before"][row]["status"], done["after"][row]["status"]) == ("needs_attention", "queued")
    assert set(done["before"][row]) <= set(done["after"][row]) | {"next_run_at"}


def test_ops_call__refused__409_is_written_and_nothing_else(client: FlaskClient, pool: PoolHouse) -> None:
    (queued,) = pool.queue_stakes([1])
    assert call(client, "olga", f"/v1/requests/{queued}/retry").status_code == 409
    attempted, refused = entries(client, subject=f"request:{queued}")
    assert (attempted["outcome"], refused["outcome"]) == ("attempted", "refused")
    assert (refused["status"], refused["code"], refused["after"]) == (409, "not_retryable", None)


def test_ops_call__with_a_bffs_key__403_is_written_once_a_minute(client: FlaskClient, parked: str) -> None:
    for _ in range(3):
        answer = call(client, "bff", f"/v1/requests/{parked}/retry")
        assert (answer.status_code, answer.get_json()["code"]) == (403, "scope_needed")
    assert call(client, "bff", f"/v1/walk/resolutions/a%00b{'c' * 999}/approve").status_code == 403
    odd, *_ = entries(client, subject=f"resolution:ab{'c' * 237}")
    assert (odd["who"], odd["code"]) == ("bff", "scope_needed")
    (refused,) = entries(client, who="bff", subject=f"request:{parked}")
    assert (refused["outcome"], refused["status"], refused["code"]) == ("refused", 403, "scope_needed")
    assert status_of(client, parked) == "needs_attention"


def test_change__that_cannot_be_written_down__is_not_made(
    client: FlaskClient, parked: str, broken_by: Callable[[str], None]
) -> None:
    """The entry and the change are one transaction."""
    broken_by("outcome = 'done'")
    assert call(client, "olga", f"/v1/requests/{parked}/retry").status_code == 500
    assert status_of(client, parked) == "needs_attention"
    assert [entry["outcome"] for entry in entries(client, subject=f"request:{parked}")] == ["attempted", "failed"]


def test_attempt__that_cannot_be_written_down__is_not_made(
    client: FlaskClient, parked: str, broken_by: Callable[[str], None]
) -> None:
    broken_by("outcome = 'attempted'")
    assert call(client, "olga", f"/v1/requests/{parked}/retry").status_code == 500
    assert status_of(client, parked) == "needs_attention"
    assert entries(client, subject=f"request:{parked}") == []


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET who = 'paul'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
def test_entries__changed_by_the_tables_owner__refused(pool: PoolHouse, client: FlaskClient, statement: str) -> None:
    with pytest.raises(psycopg2.Error, match="kept for ever"):
        run(pool, statement)


def test_start__with_the_guard_switched_off__refused(pool: PoolHouse) -> None:
    run(pool, "ALTER TABLE audit_log DISABLE TRIGGER append_only")
    try:
        with pytest.raises(NotAppendOnly, match="audit_log"):
            pool.make_app()
    finally:
        run(pool, "ALTER TABLE audit_log ENABLE ALWAYS TRIGGER append_only")


def test_four_eyes__named_keys__nobody_speaks_for_another(client: FlaskClient, pool: PoolHouse) -> None:
    with transaction(pool.context.sessions) as session:
        session.execute(insert(Walk).values(id=POOL, status="halted", halt=HALT, next_run_at=func.now()))
    answer = call(client, "olga", "/v1/walk/resolve", {**SAID, "message_id": "m:1", "by": "paul"})
    assert (answer.status_code, answer.get_json()["errors"]["by"][0][:13]) == (422, "Must be olga,")
    assert (entries(client, who="olga")[-1]["outcome"], entries(client, who="olga")[-1]["status"]) == ("refused", 422)
    proposed = call(client, "olga", "/v1/walk/resolve", {**SAID, "message_id": "m:1", "by": "olga"}).get_json()
    assert (proposed["status"], proposed["by"]) == ("proposed", "olga")
    approve = f"/v1/walk/resolutions/{proposed['id']}/approve"
    assert call(client, "olga", approve, {"by": "paul"}).status_code == 422
    assert call(client, "olga", approve, {"by": "olga"}).get_json()["code"] == "second_person_needed"
    assert call(client, "paul", approve, {"by": "paul"}).get_json()["decided_by"] == "paul"
    attempted, done = entries(client, subject=f"resolution:{proposed['id']}", who="paul")
    place = f"resolutions {proposed['id']}"
    assert attempted["asked"] == {"by": "paul"}
    assert (done["before"][place]["status"], done["after"][place]["status"]) == ("proposed", "approved")


def test_resume__of_paused_batches__before_and_after(client: FlaskClient, pool: PoolHouse) -> None:
    paused = {"code": "drift", "detail": "3 wei"}
    with transaction(pool.context.sessions) as session:
        session.execute(
            insert(Walk).values(id="paused", status="walking", batches_paused=paused, next_run_at=func.now())
        )
    answer = client.post("/v1/batches/resume?pool_id=paused", headers={HEADER: "olga"})
    assert answer.status_code == 200
    done = entries(client, subject="pool:paused")[-1]
    assert (done["before"], done["after"]) == (
        {"walks paused": {"batches_paused": paused}},
        {"walks paused": {"batches_paused": None}},
    )


def test_list__more_than_a_page__each_entry_once(client: FlaskClient, parked: str) -> None:
    call(client, "olga", f"/v1/requests/{parked}/retry")
    everything = [entry["id"] for entry in reversed(entries(client, limit=200))]
    found: list[int] = []
    after: str | None = None
    while True:
        query = {"limit": 3, **({"after": after} if after else {})}
        page = client.get("/v1/audit-log", query_string=query, headers={HEADER: "both"}).get_json()
        found += [entry["id"] for entry in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert found == everything == sorted(everything, reverse=True)
    too_many = client.get("/v1/audit-log", query_string={"limit": 201}, headers={HEADER: "both"})
    assert list(too_many.get_json()["errors"]) == ["limit"]


def test_ops_call__of_two_apps_on_one_database__each_writes_its_own(
    client: FlaskClient, pool: PoolHouse, parked: str
) -> None:
    other = pool.make_app().test_client()
    assert call(other, "paul", f"/v1/requests/{parked}/retry").status_code == 200
    assert [entry["outcome"] for entry in entries(client, subject=f"request:{parked}")] == ["attempted", "done"]


def test_call_of_a_user__is_no_ops_call__not_written(client: FlaskClient, pool: PoolHouse) -> None:
    (queued,) = pool.queue_stakes([1])
    call(client, "both", f"/v1/requests/{queued}/cancel")
    assert entries(client, subject=f"request:{queued}") == []


def test_relayer__key_paused_and_its_balance_unknown__the_change_and_the_failure_are_told(
    make_database: Callable[[str], str],
) -> None:
    house = make_house(make_database("relayer"), Node("http://127.0.0.1:1"))
    with transaction(house.context.sessions) as session:
        session.add(Signer(chain_id=CHAIN_ID, address=OPERATOR, next_nonce=0, state="active"))
    assert house.client.post(f"/v1/signers/{OPERATOR}/pause").status_code == 503  # no node answers: it cannot be shown
    failed, done, attempted = house.client.get("/v1/audit-log").get_json()["items"]
    assert [entry["outcome"] for entry in (attempted, done, failed)] == ["attempted", "done", "failed"]
    assert (failed["status"], failed["code"]) == (503, "chain_unavailable")
    place = f"signers {CHAIN_ID}:{OPERATOR}"
    assert (done["who"], done["subject"]) == ("loopback", f"address:{OPERATOR}")
    assert (done["before"][place]["state"], done["after"][place]["state"]) == ("active", "paused")


def test_rewards__refusal_that_is_stored__one_entry_with_its_code(make_database: Callable[[str], str]) -> None:
    """The refusal is what the transaction keeps, so the entry is in it."""
    client = create_rewards(reward_settings(make_database("rewards"))).test_client()
    release = {"message_id": "m:1", "pool_id": POOL, "amount_wei": "5"}
    answers = [call(client, REWARDS_KEY, "/v1/parked/release", release) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [409, 409]
    found = client.get("/v1/audit-log", headers={HEADER: REWARDS_KEY}).get_json()["items"]
    told = [(entry["outcome"], entry["code"], entry["after"]) for entry in reversed(found)]
    assert told == [("attempted", None, None), ("refused", answers[0].get_json()["code"], None)] * 2
    assert {(entry["who"], entry["subject"]) for entry in found} == {("INTERNAL_API_KEY", f"pool:{POOL}")}


def test_ledger__a_kind_that_no_bff_posts__ops_alone_and_written_down(
    make_database: Callable[[str], str], keys_file: Path
) -> None:
    url = normalise_database_url(make_database("ledger"))
    settings = LedgerSettings("test", 8101, ("shared",), url, POOL, api_keys_file=keys_file)
    client = create_ledger(settings).test_client()
    deposit = {"message_id": "m:1", "kind": "deposit", "user_id": "alice", "amount_wei": "5"}
    reversal = {"message_id": "m:2", "kind": "reversal", "user_id": "alice", "amount_wei": "5", "reference": "m:1"}
    assert call(client, "bff", "/v1/movements", deposit).status_code == 201
    assert call(client, "bff", "/v1/movements", reversal).get_json()["code"] == "scope_needed"
    assert call(client, "bff", "/v1/movements/batch", {"movements": [reversal]}).status_code == 403
    assert call(client, "shared", "/v1/movements", {**deposit, "message_id": "m:3"}).status_code == 201
    assert entries(client) == []  # the pool posts with the shared key, and movements are a log of their own
    assert call(client, "both", "/v1/movements", reversal).status_code == 201
    attempted, done = entries(client)
    assert (attempted["asked"], done["outcome"], done["status"]) == (reversal, "done", 201)
