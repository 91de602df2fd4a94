"""Makes the rows of an earlier release that a later one must finish: `tests/crash/flows/rows_of_0004`.

Run it with the code of that release in the path, in place of this tree's:

    git worktree add ../old 5b62329 && cp -r apps/devnet/node_modules ../old/apps/devnet/
    cd ../old && cp ../this/tests/support/release_rows.py tests/support/ && python -m tests.support.release_rows DIRECTORY

It leaves the pool's rows as SQL in `pool.sql`, and in `books.json` what the ledger and the index had been told by then, so
that a test can tell the same to books of its own. What was done on chain is what `on_chain` does on any node.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2

from apps.common.wei import ETHER
from apps.pool.context import make_context
from apps.pool.service import PoolService
from migrations import runner
from tests.support.flows import Flows, running_flows
from tests.support.lido import start_desk
from tests.support.postgres import start_postgres
from tests.support.protocols import NOBODY

TABLES = (
    "walks", "batches", "requests", "flow_events", "feed_counter", "request_events", "batch_transactions",
    "unsigned_transactions", "batch_elements", "withdrawals",
)  # fmt: skip
STAKED_WEI = 130 * ETHER
LEAVING_WEI = (5 * ETHER, 6 * ETHER)
FOREVER = 2**256 - 1


def on_chain(flows: Flows) -> None:
    """What the first batches did: one submit, the approval, one request of two withdrawals; then Lido paid the first."""
    desk = flows.desk
    flows.by_hand(desk.lido.submit("0x" + "00" * 20), STAKED_WEI)
    flows.by_hand(desk.lido.approve(desk.deployment.withdrawal_queue, FOREVER))
    flows.by_hand(desk.queue.requestWithdrawals(list(LEAVING_WEI), desk.operator))
    desk.oracle.finalize(1)


def fill(flows: Flows, url: str) -> None:
    """A row in every open status, and a few that have ended."""
    settings = flows.context.settings
    away = make_context(replace(settings, ledger_url=NOBODY, rewards_url=NOBODY, protocols_url=NOBODY), lambda *_: None)
    alone = replace(flows, context=away, service=PoolService(away), made=1000)
    asked = [("ann", 50), ("bob", 40), ("cat", 20), ("dan", 20)]
    for user, ether in asked:
        flows.deposit(user, ether * ETHER)
        flows.ask("stake", user, ether * ETHER)
    flows.settle()
    for user, wei in zip(("cat", "dan"), LEAVING_WEI, strict=True):
        flows.ask("unstake", user, wei)
    flows.settle()
    flows.desk.oracle.finalize(1)
    flows.settle()
    flows.claims()
    flows.batches()  # the claim of the first is built: claiming; the second is waiting

    flows.deposit("ann", 40 * ETHER)
    flows.ask("stake", "ann", 3 * ETHER)
    flows.batching()
    flows.batches()
    flows.batches()  # confirming: the relayer has it
    flows.ask("unstake", "bob", 2 * ETHER)
    flows.ask("stake", "ann", 4 * ETHER)
    flows.batching()
    _run(url, "UPDATE batches SET next_run_at = NULL WHERE status = 'confirming'")
    flows.batches()  # submitting: built; the unstake has left the index
    _run(url, "UPDATE batches SET next_run_at = NULL WHERE status = 'submitting'")
    flows.batches()  # requesting: built
    _run(url, "UPDATE batches SET next_run_at = NULL WHERE status = 'requesting'")
    flows.ask("stake", "ann", 5 * ETHER)
    flows.batching()
    _run(url, "UPDATE batches SET attempts = 1000 WHERE status = 'batched'")
    alone.batches()  # parked while batched
    flows.ask("stake", "ann", 6 * ETHER)
    flows.batching()  # batched

    queued = [flows.ask("stake", "ann", ETHER), flows.ask("unstake", "bob", ETHER)]
    taken_back = [flows.ask("stake", "ann", ETHER + 1), flows.ask("unstake", "bob", ETHER + 1)]
    for made in taken_back:
        alone.service.cancel(made["id"])
    alone.ask("stake", "ann", ETHER + 2)
    _run(url, "UPDATE requests SET attempts = 1000 WHERE status = 'reserving'")
    alone.requests()  # parked while reserving
    alone.ask("stake", "ann", ETHER + 3)
    alone.ask("unstake", "bob", ETHER + 3)
    alone.ask("reward_claim", "ann")
    _run(url, "UPDATE requests SET lease_token = 'of a dead worker', lease_until = now() WHERE status = 'reserving'")
    _run(url, "UPDATE batches SET next_run_at = now() WHERE next_run_at IS NULL AND status IN"
              " ('confirming', 'submitting', 'requesting')")  # fmt: skip
    assert len(queued) == 2


def write(flows: Flows, directory: Path) -> None:
    lines = ["-- Rows of a pool at migration 0004, made by the code of 5b62329; see tests/support/release_rows.py."]
    for table in TABLES:
        rows = [row for (row,) in _run(flows.databases["pool"], f"SELECT to_jsonb(t)::text FROM {table} t")]
        if table == "feed_counter":  # a migration has made its row
            lines.append("DELETE FROM feed_counter;")
        lines.append(
            f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(NULL::{table}, '["
        )
        lines.append(",\n".join(row.replace("'", "''") for row in rows))
        lines.append("]');")
    lines.append("SELECT setval(pg_get_serial_sequence('flow_events', 'id'), (SELECT max(id) FROM flow_events));")
    (directory / "pool.sql").write_text("\n".join(lines) + "\n")
    movements = _run(flows.databases["ledger"], "SELECT message_id, kind, user_id, amount_wei::text, reference"
                     " FROM movements WHERE kind NOT IN ('gas_float', 'gas_spent') ORDER BY id")  # fmt: skip
    told = _run(flows.databases["rewards"], "SELECT message_id, endpoint, request FROM message_keys"
                " ORDER BY created_at, message_id")  # fmt: skip
    books = {"movements": movements, "rewards": told}
    (directory / "books.json").write_text(json.dumps(books, indent=0) + "\n")


def _run(url: str, statement: str) -> list[Any]:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
        found = cursor.fetchall() if cursor.description else []
    connection.close()
    return found


def main(directory: Path) -> None:
    with start_postgres() as server, start_desk() as desk:

        def make(service: str) -> str:
            url = server.create(service)
            runner.upgrade(service, url)
            return url

        make_: Callable[[str], str] = make
        with running_flows(desk, make_) as flows:
            fill(flows, flows.databases["pool"])
            write(flows, directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
