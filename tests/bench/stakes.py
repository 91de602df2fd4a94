"""``make bench NAME=stakes``: 10,000 stakes on the desk's chain: accepted by POST, then from queued to completed by phase.

No batch is opened before all of them are queued, so that the phases of one batch do not overlap with the POSTs. Times are
those that the rows and logs of the services hold; waiting for the chain (signing, mining, confirmations) is told apart.
What the callers have not posted when their time is up is put into the queue as a POST leaves it, and told. The last line
is JSON.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Engine, text

from apps.clients.ledger import movement
from apps.common.auth import HEADER
from apps.common.database import make_engine
from apps.common.settings import normalise_database_url
from apps.common.wei import ETHER
from apps.common.wire import new_id
from apps.flow.hints import publisher
from apps.local.bff import Bff
from apps.local.stack import Stack
from apps.pool import effects
from tests.bench.load import request, run_load
from tests.support.stack import running_stack

COUNT = 10_000
CALLERS = 24
POSTING_SEC = 75.0
AMOUNT = ETHER // 1_000
CHAIN = "chain wait: signed, mined, confirmed"
# What ends a phase, in the order of the flow.
PHASES = ("batched", "built", "sent", CHAIN, "walk has begun", "in the index", "in the books", "completed")
PER_LEDGER_CALL = 1_000


@dataclass(frozen=True)
class Posted:
    """How many requests the callers had accepted, and in which time."""

    count: int
    seconds: float


def main() -> int:
    found = measure()
    phases = found["phases_sec"]
    for name, seconds in phases.items():
        sys.stdout.write(f"{name:<40}{seconds:>10.3f} s\n")
    sys.stdout.write(f"posted by {CALLERS} callers {found['posted']}, put into the queue {found['placed']}\n")
    sys.stdout.write(json.dumps({"bench": "stakes", **found}) + "\n")
    return 0


def measure(count: int = COUNT, posting_sec: float = POSTING_SEC) -> dict[str, Any]:  # printed as JSON
    """Run `count` stakes, at most 10,000, through a stack of its own, posting for at most `posting_sec`."""
    whole = {"STAKE_BATCH_THRESHOLD_WEI": str(count * AMOUNT), "STAKE_BATCH_MAX_WAIT_SEC": "3600"}
    with running_stack({**whole, "HTTP_CLIENT_TIMEOUT_SEC": "10", "RECONCILIATION_INTERVAL_SEC": "3600"}) as stack:
        bff = Bff(stack, timeout_sec=120)
        users = [f"staker-{number}" for number in range(count)]
        bff.oracle.fund(bff.custody, count * AMOUNT)
        _post_all(bff, [(f"deposit:{user}", "deposit", user) for user in users])
        posted = _post(stack, users, posting_sec)
        pool = _engine(stack, "pool")
        asked = _asked(pool)
        placed = [user for user in users if user not in asked]
        _place(stack, bff, pool, placed)
        publisher(stack.status()["broker_url"], "pool")("tasks.batching.run", None)
        bff.wait("all stakes to be completed", lambda: _completed(pool), lambda done: done == count)
        times = _times(stack, pool)
    phases = {name: round(end - start, 3) for name, (start, end) in zip(PHASES, pairwise(times), strict=True)}
    work = times[-1] - times[0] - phases[CHAIN]
    return {
        "accepted_per_s": round(posted.count / posted.seconds, 1) if posted.count else None,
        "completed_per_s": round(count / work, 1),
        "posted": posted.count,
        "placed": len(placed),
        "work_sec": round(work, 3),
        "phases_sec": phases,
    }


def _post_all(bff: Bff, wanted: Sequence[tuple[str, str, str]]) -> None:
    rows = [movement(name, kind, bff.pool_id, user, AMOUNT) for name, kind, user in wanted]
    for start in range(0, len(rows), PER_LEDGER_CALL):
        some = rows[start : start + PER_LEDGER_CALL]
        # A machine that does other things besides may let a call time out; it is sent again under the same names.
        bff.wait("the ledger", lambda some=some: bff.clients.ledger.post_batch(some), bool)  # type: ignore[misc]


def _post(stack: Stack, users: Sequence[str], seconds: float) -> Posted:
    """POST a stake for each user, by callers that keep their connections; none is begun after so many seconds."""
    status = stack.status()
    url = f"{status['services']['pool']}/v1/stakes"
    headers = {HEADER: status["internal_api_key"]}
    waiting = iter(users)

    def ask() -> bytes | None:
        user = next(waiting, None)
        if user is None:
            return None
        body = {"message_id": f"stake:{user}", "user_id": user, "amount_wei": str(AMOUNT)}
        return request("POST", url, headers, json.dumps(body).encode())

    found = run_load(url, ask, connections=CALLERS, seconds=seconds, wanted=201)
    return Posted(found.good, found.seconds)


def _asked(pool: Engine) -> set[str]:
    """Whose stake the pool knows; waits until each of those is queued."""
    for _ in _looks():
        with pool.connect() as connection:
            rows = connection.execute(text("SELECT user_id, status FROM requests")).all()
        if all(row.status == "queued" for row in rows):
            return {row.user_id for row in rows}
    raise AssertionError("never reached")


def _looks() -> Iterator[int]:
    """Look until the caller is content, for a minute at most."""
    pause, deadline = threading.Event(), time.monotonic() + 60
    number = 0
    while time.monotonic() < deadline:
        yield number
        number += 1
        pause.wait(0.1)
    raise TimeoutError("Accepted stakes did not come to be queued.")


_PLACE = text(
    """
    INSERT INTO requests (id, message_id, body, kind, pool_id, user_id, amount_wei, status, queued_at, eligible_at)
    SELECT r.id, 'stake:' || r.user_id, '{}', 'stake', :pool_id, r.user_id, :amount, 'queued', clock_timestamp(), now()
    FROM unnest(CAST(:ids AS text[]), CAST(:users AS text[])) AS r(id, user_id)
    """
)
_PLACE_EVENTS = text(
    """
    INSERT INTO unnumbered_events (request_id, status, amount_wei)
    SELECT id, 'queued', :amount FROM unnest(CAST(:ids AS text[])) AS r(id)
    """
)
# An event gets its number some time after its commit.
_ENDS = text(
    """
    SELECT status, extract(epoch FROM max(created_at)) AS at
    FROM (
        SELECT status, created_at FROM request_events UNION ALL SELECT status, created_at FROM unnumbered_events
    ) AS events
    GROUP BY status
    """
)


def _place(stack: Stack, bff: Bff, pool: Engine, users: Sequence[str]) -> None:
    """Put stakes into the queue as their POST leaves them: the ETH set aside, the row queued, its event written."""
    if not users:
        return
    ids = [new_id() for _ in users]
    _post_all(
        bff, [(effects.stake_reserve(made), "stake_reserve", user) for made, user in zip(ids, users, strict=True)]
    )
    given = {"ids": ids, "users": list(users), "amount": AMOUNT, "pool_id": stack.status()["pool_id"]}
    with pool.begin() as connection:
        connection.execute(_PLACE, given)
        connection.execute(_PLACE_EVENTS, given)


def _completed(pool: Engine) -> int:
    with pool.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM requests WHERE status = 'completed'")) or 0)


def _times(stack: Stack, pool: Engine) -> list[float]:
    """When all were queued, and when each of `PHASES` ended, in seconds since 1970, by the services' own clocks."""
    with pool.connect() as connection:
        ends = {row.status: float(row.at) for row in connection.execute(_ENDS)}
        (tx_hash, message_id) = connection.execute(
            text("SELECT tx_hash, message_id FROM batch_transactions WHERE purpose = 'submit'")
        ).one()
    mined = _latest(
        stack, "relayer", "SELECT max(at) FROM message_events WHERE message_id = :name AND type = 'settled'", message_id
    )
    gas = "SELECT max(created_at) FROM movements WHERE kind = 'gas_spent' AND reference = :name"
    walking = _latest(stack, "ledger", gas, tx_hash)
    # Where the walk was quicker than the relayer's own look, the chain was waited for until it began.
    mined = min(mined, walking)
    index = _latest(stack, "rewards", "SELECT max(created_at) FROM reward_events WHERE kind = :name", "stake_delta")
    books = _latest(stack, "ledger", "SELECT max(created_at) FROM movements WHERE kind = :name", "stake_confirm")
    named = [ends[status] for status in ("queued", "batched", "submitting", "confirming")]
    return [*named, mined, walking, index, books, ends["completed"]]


def _latest(stack: Stack, service: str, query: str, name: str) -> float:
    with _engine(stack, service).connect() as connection:
        found = connection.scalar(text(f"SELECT extract(epoch FROM ({query}))"), {"name": name})
    if found is None:
        raise LookupError(f"{service} has no time of {name}.")
    return float(found)


def _engine(stack: Stack, service: str) -> Engine:
    return make_engine(normalise_database_url(stack.status()["database_urls"][service]))


if __name__ == "__main__":
    raise SystemExit(main())
