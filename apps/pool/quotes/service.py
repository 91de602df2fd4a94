"""The quote of a request, the estimates that are kept of requests, and how good they were."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, text

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes import pool as shapes
from apps.clients.shapes.common import PoolQuery, Reason
from apps.clients.shapes.protocols import LidoState
from apps.common.database import transaction
from apps.ethereum.splitting import split
from apps.pool.context import PoolContext
from apps.pool.flows.limits import MAX_UNSTAKE_WEI, TOO_MUCH_TO_UNSTAKE, Cap, relayer_limits
from apps.pool.quotes.estimate import Facts, stake_basis, total_sec, unstake_basis
from apps.pool.quotes.facts import facts_about
from apps.pool.reads import PoolReads
from apps.pool.states import RequestKind

HOLDS_SEC = 30
# A sample: of so many requests at most, among so many of the newest, an estimate is kept at each look.
SAMPLED, AMONG = 20, 200
WAYS = (RequestKind.STAKE, RequestKind.UNSTAKE)

_UNESTIMATED = text(
    """
    SELECT id, kind, pool_id, amount_wei
    FROM (SELECT * FROM requests ORDER BY id DESC LIMIT :among) newest
    WHERE kind IN ('stake', 'unstake') AND status IN ('queued', 'batched', 'submitting', 'requesting')
      AND amount_wei IS NOT NULL AND created_at > now() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM request_estimates e WHERE e.request_id = newest.id)
    LIMIT :sampled
    """
)
_KEEP = text(
    """
    INSERT INTO request_estimates (request_id, kind, expected_at)
    SELECT id, kind, created_at + make_interval(secs => :expected_sec) FROM requests WHERE id = :id
    ON CONFLICT (request_id) DO NOTHING
    """
)
_ACCURACY = text(
    """
    SELECT e.kind, count(*) AS requests,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY error) AS median,
           percentile_disc(0.9) WITHIN GROUP (ORDER BY error) AS p90,
           max(error) AS worst
    FROM (
        SELECT e.kind, round(extract(epoch FROM r.updated_at - e.expected_at)) AS error
        FROM request_estimates e JOIN requests r ON r.id = e.request_id
        WHERE r.status = 'completed' AND r.pool_id = :pool_id AND e.created_at > now() - interval '30 days'
    ) e GROUP BY e.kind
    """
)


class Quotes:
    """Owns the transactions of the endpoints of quotes."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._reads = PoolReads(context)

    def quote(self, query: shapes.QuoteQuery) -> shapes.Quote:
        """Limits, cost and expected time of a request. The protocol's state is read fresh."""
        kind, amount_wei = RequestKind(query.kind), query.amount_wei
        pool_id = self._reads.pool_of(query.pool_id)
        state = self._context.protocols.state()
        facts = facts_about(self._context, pool_id, kind, state)
        cap = self._cap(kind, state)
        basis = basis_of(kind, amount_wei, facts)
        impossible = cap is not None and amount_wei > cap.wei
        expected_sec = None if impossible else total_sec(basis)
        return shapes.Quote(
            kind=kind,
            amount_wei=amount_wei,
            minimum_wei=self._reads.least_wei(kind),
            maximum_wei=None if cap is None else cap.wei,
            current_limit_wei=state.stake_limit.current_wei if kind == RequestKind.STAKE else None,
            expected_sec=expected_sec,
            reason=Reason(cap.code, cap.detail) if cap is not None and impossible else _reason(kind, basis),
            expected_at=None if expected_sec is None else facts.now + timedelta(seconds=expected_sec),
            basis=basis,
            split_wei=split(amount_wei) if kind == RequestKind.UNSTAKE and not impossible else [amount_wei],
            reward_fee_bps=self._context.rewards.fee().reward_fee_bps,
            block_number=state.block_number,
            quoted_at=facts.now,
            expires_at=facts.now + timedelta(seconds=HOLDS_SEC),
        )

    def accuracy(self, query: PoolQuery) -> shapes.QuoteAccuracies:
        """How far estimates were off."""
        with transaction(self._context.sessions) as session:
            rows = session.execute(_ACCURACY, {"pool_id": self._reads.pool_of(query.pool_id)})
            found = {row.kind: row for row in rows}
        return shapes.QuoteAccuracies([_accuracy(kind, found.get(kind)) for kind in WAYS])

    def _cap(self, kind: RequestKind, state: LidoState) -> Cap | None:
        if kind == RequestKind.UNSTAKE:
            return Cap(MAX_UNSTAKE_WEI, "unstake_above_limit", TOO_MUCH_TO_UNSTAKE)
        return relayer_limits(self._context.relayer).with_state(state).of_a_stake()


def record_estimates(context: PoolContext) -> int:
    """Keep what would be quoted now for some requests that came just now, so that it can be held against what comes; returns
    how many. Nothing rests on it: where another service does not answer, none is kept."""
    with transaction(context.sessions) as session:
        rows = session.execute(_UNESTIMATED, {"among": AMONG, "sampled": SAMPLED}).all()
    if not rows:
        return 0
    try:
        state = context.look.state(context.protocols)
    except (CallFailed, CallRefused):
        return 0
    facts: dict[tuple[str, str], Facts] = {}
    kept = []
    for row in rows:
        about = (row.pool_id, row.kind)
        if about not in facts:
            facts[about] = facts_about(context, row.pool_id, RequestKind(row.kind), state)
        # Where it is in the queue already, its own wei are among those queued.
        expected_sec = total_sec(basis_of(RequestKind(row.kind), 0, facts[about]))
        if expected_sec is not None:
            kept.append({"id": row.id, "expected_sec": expected_sec})
    if kept:
        with transaction(context.sessions) as session:
            session.execute(_KEEP, kept)
    return len(kept)


def basis_of(kind: RequestKind, amount_wei: int, facts: Facts) -> list[shapes.QuoteBasis]:
    """The parts of the expected time of a request."""
    return unstake_basis(amount_wei, facts) if kind == RequestKind.UNSTAKE else stake_basis(amount_wei, facts)


def _reason(kind: RequestKind, basis: Sequence[shapes.QuoteBasis]) -> Reason:
    """What decides the time: a part that cannot be told, else a limit, else the usual."""
    part = next((part for part in basis if part.seconds is None or part.code == "stake_limit"), None)
    if part is not None:
        return Reason(part.code, part.detail)
    if kind == RequestKind.UNSTAKE:
        return Reason("withdrawal_queue", "The protocol pays in its own order, usually within days.")
    return Reason("batching", "Waits for its batch, then for the chain to confirm it.")


def _accuracy(kind: RequestKind, row: Row[Any] | None) -> shapes.QuoteAccuracy:
    if row is None:
        return shapes.QuoteAccuracy(kind, 0, None, None, None)
    return shapes.QuoteAccuracy(kind, row.requests, int(row.median), int(row.p90), int(row.worst))
