"""A hundred openers on five thousand queued stakes, while users take theirs back: each stake in one batch, none above a limit."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text, update

from apps.common.database import transaction
from apps.common.wei import ETHER
from apps.pool.context import PoolContext, make_context
from apps.pool.feed import number_events
from apps.pool.flows.batching import open_batches
from apps.pool.flows.limits import Limits
from apps.pool.models import Request
from tests.support.pool import lido_state, pool_settings
from tests.support.protocols import POOL

PER_TX_WEI = 333 * ETHER
QUEUE = """
    INSERT INTO requests (id, message_id, body, kind, pool_id, user_id, amount_wei, status, queued_at, eligible_at)
    SELECT to_char(n, 'FM00000'), n::text, '{}', 'stake', :pool, 'user-' || n % 50, (1 + n % 7) * 10::numeric ^ 18, 'queued',
        now() - interval '1 hour' + n * interval '1 ms', now()
    FROM generate_series(1, :rows) n
"""


def house(url: str, hints: list[tuple[str, str | None]]) -> PoolContext:
    """A process's own connections."""
    return make_context(
        pool_settings(url, stake_batch_threshold_wei=1), lambda task, row_id: hints.append((task, row_id))
    )


def ask(context: PoolContext, query: str) -> list[Any]:
    with transaction(context.sessions) as session:
        return list(session.execute(text(query)).all())


@pytest.mark.parametrize(
    ("openers", "rows"), [(12, 600), pytest.param(100, 5_000, marks=pytest.mark.prove, id="hundred")]
)
def test_open__many_openers_and_users_who_take_back__each_in_one_batch_and_none_above_the_limit(
    make_database: Callable[[str], str], openers: int, rows: int
) -> None:
    url = make_database("pool")
    hints: list[tuple[str, str | None]] = []
    first = house(url, hints)
    with transaction(first.sessions) as session:
        session.execute(text(QUEUE), {"pool": POOL, "rows": rows})
    back = openers // 10
    barrier = threading.Barrier(openers + back)

    def open_all(_: int) -> int:
        context = house(url, hints)
        barrier.wait()
        opened, idle = 0, 0
        while idle < 3:  # nothing to be had may mean that another one is at it
            now = open_batches(context, POOL, lido_state(), Limits(per_tx_wei=PER_TX_WEI))
            opened, idle = opened + now, 0 if now else idle + 1
        context.sessions.kw["bind"].dispose()
        return opened

    def take_back(number: int) -> int:
        """Every tenth of the queue's end: what an opener holds may be gone by the time that the lock is ours."""
        context = house(url, hints)
        barrier.wait()
        taken = 0
        for wanted in range(rows - number, rows // 2, -rows // 10):
            with transaction(context.sessions) as session:
                found = session.scalar(
                    update(Request)
                    .where(Request.id == f"{wanted:05}", Request.status == "queued")
                    .values(intent="cancel")
                    .returning(Request.id)
                )
                taken += found is not None
        context.sessions.kw["bind"].dispose()
        return taken

    with ThreadPoolExecutor(openers + back) as threads:
        opening = [threads.submit(open_all, number) for number in range(openers)]
        taking = [threads.submit(take_back, number) for number in range(back)]
        opened, taken = sum(one.result() for one in opening), sum(one.result() for one in taking)
    while open_batches(first, POOL, lido_state(), Limits(per_tx_wei=PER_TX_WEI)):
        opened += 1

    batches = ask(first, "SELECT id, amount_wei::text, request_count FROM batches")
    members = ask(first, "SELECT batch_id, sum(amount_wei)::text, count(*)::int FROM requests WHERE batch_id IS NOT NULL"
                         " GROUP BY batch_id")  # fmt: skip
    assert sorted(map(tuple, members)) == sorted(map(tuple, batches))
    assert len(batches) == opened > rows // 100
    assert max(int(amount) for _, amount, _ in batches) <= PER_TX_WEI
    left = ask(
        first, "SELECT status, intent, batch_id IS NULL, count(*)::int FROM requests GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert {tuple(row) for row in left} == {("batched", None, False, rows - taken), *(
        {("queued", "cancel", True, taken)} if taken else set())}  # fmt: skip
    number_events(first.sessions)
    told = ask(first, "SELECT count(*)::int, count(DISTINCT request_id)::int, max(sequence)::int FROM request_events")
    assert set(told[0]) == {rows - taken}, "each is told of once, and the feed has no gap"
    assert sorted(str(row_id) for _, row_id in hints) == sorted(batch_id for batch_id, _, _ in batches)


def test_open__queued_by_a_later_release__left_to_its_workers(make_database: Callable[[str], str]) -> None:
    context = house(make_database("pool"), [])
    with transaction(context.sessions) as session:
        session.execute(text(QUEUE), {"pool": POOL, "rows": 10})
        session.execute(update(Request).where(Request.id <= "00004").values(flow_version=Request.current_version + 1))
    assert open_batches(context, POOL, lido_state(), Limits()) == 1
    assert open_batches(context, POOL, lido_state(), Limits()) == 0
    left = ask(context, "SELECT id, reason FROM requests WHERE status = 'queued' ORDER BY id")
    assert [tuple(row) for row in left] == [(f"{number:05}", None) for number in range(1, 5)]
