"""Rows that the release of migration 0004 left in every open status are migrated and finished by this one, to the wei."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from apps.clients.ledger import movement
from apps.common.wei import ETHER
from migrations import runner
from tests.support.flows import Flows, running_flows
from tests.support.lido import Desk
from tests.support.postgres import Server
from tests.support.protocols import POOL
from tests.support.ratchet import Watch, watching
from tests.support.release_rows import on_chain

ROWS = Path(__file__).parent / "rows_of_0004"
OPEN = {
    "stake": {"reserving", "queued", "batched", "submitting", "confirming", "needs_attention"},
    "unstake": {"reserving", "queued", "requesting", "waiting", "claiming"},
    "reward_claim": {"settling"},
}
ENDED = {"stake": {"completed"}}


@pytest.fixture
def flows(desk: Desk, make_database: Callable[[str], str], postgres: Server) -> Iterator[Flows]:
    """The pool is that of the last release, migrated; the chain and the other services' books are new, and match."""
    pool_url = postgres.create("pool_of_0004")
    runner.upgrade("pool", pool_url, "0004")
    execute(pool_url, (ROWS / "pool.sql").read_text())
    runner.upgrade("pool", pool_url)
    with running_flows(desk, lambda name: pool_url if name == "pool" else make_database(name)) as found:
        tell_the_books(found)
        on_chain(found)
        here = desk.web3.eth.get_block("latest")
        execute(pool_url, "UPDATE walks SET cursor_block = %s, cursor_block_hash = %s, gas_cursor = NULL",
                here["number"], here["hash"].to_0x_hex())  # fmt: skip
        yield found
    postgres.drop([pool_url])


def execute(url: str, statement: str, *given: object) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement, given or None)
    connection.close()


def tell_the_books(flows: Flows) -> None:
    """What ledger and index were told by the release before, told to these."""
    books: dict[str, Any] = json.loads((ROWS / "books.json").read_text())
    for message_id, kind, user, wei, reference in books["movements"]:
        flows.ledger.post_batch([movement(message_id, kind, POOL, user, int(wei), reference=reference)])
        if kind == "deposit":
            flows.desk.oracle.fund(flows.desk.operator, int(wei))
    for message_id, endpoint, request in books["rewards"]:
        body = {"message_id": message_id, **request}
        if endpoint == "stake-deltas":
            body = {"pool_id": body.pop("pool_id"), "deltas": [body]}
        flows.context.rewards.post(f"/v1/{endpoint}", body)


def found(watch: Watch) -> dict[str, set[str]]:
    by_kind: dict[str, set[str]] = {}
    for kind, status in watch.ask("SELECT DISTINCT kind, status FROM requests"):
        by_kind.setdefault(kind, set()).add(status)
    return by_kind


def test_rows_of_the_release_before__in_every_open_status__finished_with_each_effect_once(flows: Flows) -> None:
    with watching(flows) as watch:
        assert found(watch) == {kind: statuses | ENDED.get(kind, set()) for kind, statuses in OPEN.items()}
        batches = Counter((kind, status) for kind, status in watch.ask("SELECT kind, status FROM batches"))
        assert batches.keys() >= {("stake", "batched"), ("stake", "submitting"), ("stake", "confirming"),
                                  ("stake", "needs_attention"), ("unstake", "requesting"), ("claim", "claiming")}  # fmt: skip
        watch.time_passes()
        for (request_id,) in watch.ask("SELECT id FROM requests WHERE status = 'needs_attention'"):
            flows.service.retry(request_id)
        flows.settle()
        flows.desk.oracle.finalize()
        flows.claims()
        flows.settle()
        ends = Counter(status for (status,) in watch.ask("SELECT status FROM requests"))
        assert ends == {"completed": sum(ends.values()) - 2, "cancelled": 2}
        assert flows.drifts() == {}
        watch.assert_right(**ends)
        assert 6 * ETHER - int(flows.balance("dan")["available_wei"]) in {0, 1}  # as the chain rounds
