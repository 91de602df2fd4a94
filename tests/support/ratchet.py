"""What it takes to disturb a life at each of its points in turn, and what must hold of it in the end.

A disturbance strikes at the n-th point that a piece of work comes to. n begins at 1 and grows for as long as that has moved
nothing; once something has moved, it begins at 1 again, until the work comes to its end undisturbed. So every point of a
life is struck, in its order, and none of them is written down anywhere.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2

from apps.common.shapes import dump
from apps.pool.feed import number_events
from relayer.store.states import FINAL
from tests.support.flows import Flows
from tests.support.protocols import POOL

MOST = 3_000
# Every row is due and free, as it is once all leases and pauses are over.
TIME_PASSES = """
    UPDATE requests SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL;
    UPDATE batches SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL;
    UPDATE walks SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL;
    UPDATE requests SET next_run_at = now() - interval '1 s' WHERE next_run_at IS NOT NULL;
    UPDATE batches SET next_run_at = now() - interval '1 s' WHERE next_run_at IS NOT NULL;
    UPDATE walks SET next_run_at = now() - interval '1 s' WHERE next_run_at IS NOT NULL;
    UPDATE requests SET eligible_at = now() - interval '1 s' WHERE status = 'queued';
    UPDATE withdrawals SET claim_after = NULL WHERE claim_after IS NOT NULL;
    UPDATE user_lanes SET held_until = now() - interval '1 s'
"""
# What has moved: statuses and effects, not leases, attempts and times.
MOVED = {
    "pool": """
        SELECT (SELECT md5(string_agg((id, status, reason ->> 'code', batch_id, intent, reservation, amount_wei,
                    settled_wei)::text, ',' ORDER BY id)) FROM requests),
               (SELECT md5(string_agg((id, status, try_number, funded, reused_wei, settlement, short_wei)::text, ','
                    ORDER BY id)) FROM batches),
               (SELECT md5(string_agg((message_id, status, tx_hash)::text, ',' ORDER BY message_id))
                    FROM batch_transactions),
               (SELECT count(*) FROM unsigned_transactions),
               (SELECT md5(string_agg((message_id, status, tx_hash)::text, ',' ORDER BY message_id))
                    FROM payout_transactions),
               (SELECT md5(string_agg((withdrawal_id, claim_batch_id, paid_wei)::text, ',' ORDER BY withdrawal_id))
                    FROM withdrawals),
               (SELECT md5(string_agg((status, cursor_block, cursor_log_index, closing_block, reward_event_id,
                    gas_cursor)::text, ',' ORDER BY id)) FROM walks),
               (SELECT last_sequence + (SELECT count(*) FROM unnumbered_events) FROM feed_counter)""",
    "ledger": "SELECT max(id) FROM movements",
    "rewards": "SELECT max(id) FROM reward_events",
    "relayer": """
        SELECT (SELECT md5(string_agg((message_id, status, nonce, tx_hash)::text, ',' ORDER BY message_id)) FROM messages),
               (SELECT count(*) FROM attempts)""",
}
REQUESTS, BATCHING, BATCHES = "tasks.requests.advance", "tasks.batching.run", "tasks.batches.advance"
PUMP, WALK, CLAIMS = "relayer.tasks.pump", "tasks.walk.run_pool", "tasks.claims.poll"
DUE = {
    REQUESTS: "SELECT 1 FROM requests WHERE next_run_at IS NOT NULL",
    BATCHING: "SELECT 1 FROM requests WHERE status = 'queued' AND intent IS NULL",
    BATCHES: "SELECT 1 FROM batches WHERE next_run_at IS NOT NULL",
}
TURN = (REQUESTS, BATCHING, BATCHES, PUMP, WALK)
# The movements that a request has by its end, by what is between its kind and id and their number.
ENDS = {
    ("stake", "completed"): {"reserve", "confirm"},
    ("stake", "cancelled"): {"reserve", "cancel"},
    ("stake", "failed"): {"reserve", "release"},
    ("stake", "rejected"): set(),
    ("unstake", "completed"): {"start"},
    ("unstake", "cancelled"): {"start", "cancel"},
    ("reward_claim", "completed"): set(),
    ("payout", "completed"): {"reserve", "paid"},
    ("payout", "cancelled"): {"reserve", "return"},
    ("payout", "failed"): {"reserve", "return"},
    ("deposit", "completed"): set(),  # its one movement has the name of the transaction
}


@dataclass
class Watch:
    """The databases of a house, seen from outside."""

    flows: Flows
    cursors: dict[str, Any]

    def ask(self, query: str, *given: object, database: str = "pool") -> list[Any]:
        cursor = self.cursors[database]
        cursor.execute(query, given or None)
        found: list[Any] = cursor.fetchall()
        return found

    def time_passes(self) -> None:
        self.cursors["pool"].execute(TIME_PASSES)

    def moved(self) -> list[Any]:
        """A fingerprint of all that a life moves."""
        return [self.ask(query, database=name) for name, query in MOVED.items()]

    def due(self, task: str) -> bool:
        if task == PUMP:
            return bool(
                self.ask("SELECT 1 FROM messages WHERE status <> ALL (%s) LIMIT 1", list(FINAL), database="relayer")
            )
        if task == WALK:
            return self.walked() < self.flows.desk.head()
        return bool(self.ask(f"{DUE[task]} LIMIT 1"))

    def walked(self) -> int:
        return int(self.ask("SELECT coalesce(max(cursor_block), 0) FROM walks")[0][0])

    def settle(self, run: Callable[[str], object]) -> None:
        """Run each task that is due, until nothing is under way but what waits for Lido and the last block is walked."""
        for number in range(100):
            for task in TURN:
                if self.due(task):
                    run(task)
            if number > 0 and self.walked() == self.flows.desk.head():
                self.flows.desk.oracle.mine()  # as on any chain: the walk closes a block when a later one is there
            under_way = self.flows._under_way()
            if number > 1 and not under_way and not self.due(PUMP):
                return
        raise AssertionError(f"still under way: {under_way}, walk: {self.flows.walk().reason}")

    def paid_on_chain(self) -> Counter[tuple[str, int]]:
        """How often which amount was sent from custody to whom by a plain transfer, whatever anybody reports."""
        web3, custody = self.flows.desk.web3, self.flows.desk.operator.lower()
        found: Counter[tuple[str, int]] = Counter()
        for number in range(self.flows.desk.head() + 1):
            block: Any = web3.eth.get_block(number, full_transactions=True)
            for sent in block["transactions"]:
                if sent["from"].lower() == custody and sent["input"] in {"0x", b""} and sent["to"] and sent["value"]:
                    found[sent["to"].lower(), int(sent["value"])] += 1
        return found

    def assert_right(self, **ends: int) -> None:
        """All requests have ended, so many each way; each effect is there once; chain and books agree to the wei."""
        flows = self.flows
        number_events(flows.context.sessions)
        found = Counter(status for (status,) in self.ask("SELECT status FROM requests"))
        assert found == ends
        for kind, request_id, status in self.ask("SELECT kind, id, status FROM requests"):
            names = self.ask("SELECT message_id FROM movements WHERE message_id LIKE %s", f"{kind}:{request_id}:%",
                             database="ledger")  # fmt: skip
            own = sorted(name.split(":")[2] for (name,) in names if ":book" not in name)
            assert own == sorted(ENDS[kind, status]), (kind, status, names)
        ((events, last),) = self.ask("SELECT count(*), max(sequence) FROM request_events")
        assert events == last == self.ask("SELECT last_sequence FROM feed_counter")[0][0], "the feed has no gap"
        repeated = """SELECT * FROM (SELECT (status, reason) = lag((status, reason)) OVER (PARTITION BY request_id
            ORDER BY sequence) AS same FROM request_events) told WHERE same"""
        assert self.ask(repeated) == [], "nothing is told twice"
        sent = [nonce for (nonce,) in self.ask(
            "SELECT nonce FROM messages WHERE nonce IS NOT NULL ORDER BY nonce", database="relayer")]  # fmt: skip
        used = flows.desk.web3.eth.get_transaction_count(flows.desk.operator)  # type: ignore[arg-type]
        assert sent == list(range(used - len(sent), used)), "each message used one nonce, and nothing else used any"
        assert flows.walk().status == "walking", flows.walk().reason
        run = flows.reconcile()
        assert run["verdict"] == "ok"
        assert {line["name"]: line["drift_wei"] for line in run["lines"] if line["drift_wei"] != "0"} == {}
        assert flows.context.ledger.totals(POOL).sum_wei == 0
        for audit in (flows.context.ledger.audit(POOL), flows.context.rewards.audit(POOL)):
            assert audit.ok, dump(audit)


def ratchet(moved: Callable[[], object], attempt: Callable[[int], bool]) -> int:
    """Attempt a piece of work, struck at its n-th point, until it comes to its end; returns how often it was struck.

    `attempt` is given n, and tells whether it was struck.
    """
    number, struck, before = 1, 0, moved()
    while attempt(number):
        struck += 1
        assert struck < MOST
        after = moved()
        number, before = (1, after) if after != before else (number + 1, before)
    return struck


@contextmanager
def watching(flows: Flows) -> Iterator[Watch]:
    with ExitStack() as stack:
        cursors = {}
        for name in MOVED:
            connection = psycopg2.connect(flows.databases[name])
            stack.callback(connection.close)
            connection.autocommit = True
            cursors[name] = connection.cursor()
        yield Watch(flows, cursors)
