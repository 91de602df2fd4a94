"""What it takes to disturb a life at each of its points in turn, and what must hold of it in the end.

A disturbance strikes at the first point of a piece of work that it was not struck at before while the house was in such a
state: the statuses that its open rows have between them. The same work is then done again, until it comes to its end
undisturbed. So every point of a life is struck in every state that it is come to in, in its order; none of them is written
down anywhere; and the way to a point costs no strike for what was struck already.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
# The statuses that open rows have between them, by database.
STATE = {
    "pool": """
        SELECT coalesce(string_agg(DISTINCT told, ', ' ORDER BY told), '') FROM (
            SELECT concat_ws(' ', kind, status, intent) AS told FROM requests
            WHERE status NOT IN ('completed', 'rejected', 'cancelled', 'failed')
            UNION ALL
            SELECT concat_ws(' ', 'batch', kind, status) FROM batches WHERE status NOT IN ('completed', 'failed')
            UNION ALL
            SELECT concat_ws(' ', 'transfer', t.status) FROM payout_transactions t JOIN requests r ON r.id = t.request_id
            WHERE r.status NOT IN ('completed', 'rejected', 'cancelled', 'failed')
        ) found""",
    "relayer": """
        SELECT coalesce(string_agg(DISTINCT 'message ' || status, ', '), '') FROM messages
        WHERE status IN ('queued', 'signed', 'broadcast', 'mined')""",
}
DATABASES = ("pool", "ledger", "rewards", "relayer")
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

    def state(self) -> str:
        """The statuses of all that is open."""
        return ", ".join(str(self.ask(query, database=name)[0][0]) for name, query in STATE.items())

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
        assert found == ends, self.ask("SELECT kind, status, reason, count(*) FROM requests GROUP BY 1, 2, 3")
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


@dataclass
class Ratchet:
    """Which points were struck already, by the name of the work and the state of the house that it was begun in."""

    state: Callable[[], str]
    struck: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def work(self, name: str, attempt: Callable[[frozenset[str]], str | None]) -> int:
        """Attempt a piece of work until it comes to its end; returns how often it was struck.

        `attempt` is given the points that are struck already, and tells where it was struck this time.
        """
        for times in range(MOST):
            known = self.struck[name, self.state()]
            point = attempt(frozenset(known))
            if point is None:
                return times
            assert point not in known
            known.add(point)
        raise AssertionError(f"{name} was struck {MOST} times and has not come to its end")


@contextmanager
def watching(flows: Flows) -> Iterator[Watch]:
    with ExitStack() as stack:
        cursors = {}
        for name in DATABASES:
            connection = psycopg2.connect(flows.databases[name])
            stack.callback(connection.close)
            connection.autocommit = True
            cursors[name] = connection.cursor()
        yield Watch(flows, cursors)
