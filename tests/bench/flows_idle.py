"""What a hundred thousand waiting rows cost a system that has nothing to do: CPU, and transactions of its databases."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg2

from apps.common.wei import ETHER
from apps.local.stack import Stack
from tests.bench.cpu import Meter
from tests.support.stack import running_stack

ROWS = 100_000
SECONDS = 20.0
SETTLE_SEC = 8.0
CHAIN = "anvil"  # not ours: a node is somewhere else
# Production's intervals in place of the desk's, and batches that wait for more than there is.
PRODUCTION = {
    "STAKE_BATCH_THRESHOLD_WEI": str(10**9 * ETHER),
    "STAKE_BATCH_MAX_WAIT_SEC": "86400",
    "BATCH_INTERVAL_SEC": "5",
    "REWARD_DISTRIBUTION_INTERVAL_SEC": "30",
    "CLAIM_POLL_INTERVAL_SEC": "60",
    "RECONCILIATION_INTERVAL_SEC": "3600",
}
# Half of them are in the queue of stakes, the others wait for a time of their own, as after an outage.
SEED = """
INSERT INTO requests (id, message_id, body, kind, pool_id, user_id, amount_wei, status, queued_at, eligible_at, next_run_at)
SELECT 'idle-' || n, 'idle-' || n, '{}', 'stake', %(pool_id)s, 'idle-' || n, 1000000000,
       CASE WHEN n %% 2 = 0 THEN 'queued' ELSE 'reserving' END,
       CASE WHEN n %% 2 = 0 THEN now() END, CASE WHEN n %% 2 = 0 THEN now() END,
       CASE WHEN n %% 2 = 1 THEN now() + interval '1 day' END
FROM generate_series(1, %(rows)s) n
"""
TRANSACTIONS = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database"


def idle() -> float:
    """Percent of one core for all processes but the chain's; prints what each takes."""
    with running_stack(PRODUCTION) as stack:
        time.sleep(SETTLE_SEC)  # the first firing of every schedule
        _look(stack, "no rows wait")
        _seed(stack)
        time.sleep(SETTLE_SEC)
        return _look(stack, f"{ROWS:,} rows wait")


def _seed(stack: Stack) -> None:
    with _connected(stack) as cursor:
        cursor.execute(SEED, {"pool_id": stack.status()["pool_id"], "rows": ROWS})
        cursor.execute("VACUUM ANALYZE requests")  # else autovacuum would do it while it is measured


def _look(stack: Stack, what: str) -> float:
    meter = Meter({name: info["pid"] for name, info in stack.processes().items() if info["pid"]})
    with _connected(stack) as cursor:
        before, transactions = meter.read(), _transactions(cursor)
        time.sleep(SECONDS)
        used, ended = meter.since(before), _transactions(cursor) - transactions
    percent = {name: seconds / SECONDS * 100 for name, seconds in used.items()}
    total = sum(percent.values()) - percent[CHAIN]
    sys.stdout.write(
        f"idle, {what}: {total:.1f} % of a core and {ended / SECONDS:.1f} transactions/s; {_by_size(percent)}\n"
    )
    sys.stdout.flush()
    return round(total, 1)


def _by_size(percent: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in sorted(percent.items(), key=lambda each: -each[1]))


def _transactions(cursor: "psycopg2.extensions.cursor") -> int:
    cursor.execute("SELECT pg_stat_clear_snapshot()")
    cursor.execute(TRANSACTIONS)
    found = cursor.fetchone()
    assert found is not None
    return int(found[0])


@contextmanager
def _connected(stack: Stack) -> Iterator["psycopg2.extensions.cursor"]:
    connection = psycopg2.connect(stack.status()["database_urls"]["pool"], connect_timeout=10)
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


if __name__ == "__main__":
    idle()
