"""What anybody may ask of the pool: requests, batches, portfolio, quotes, the feed, the walk. Nothing here writes."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes import pool as shapes
from apps.clients.shapes.common import PoolQuery
from apps.clients.shapes.walk import MetricsQuery, ProtocolMetricPage
from apps.clients.shapes.walk import ProtocolMetric as ShownMetric
from apps.clients.shapes.walk import Walk as ShownWalk
from apps.common.database import transaction
from apps.common.errors import NotFound
from apps.common.long_poll import LongPoll
from apps.common.wire import cut, integer_cursor
from apps.pool.context import PoolContext
from apps.pool.feed import number_events
from apps.pool.flows.limits import Cap, relayer_limits
from apps.pool.models import WHOLE_BLOCK, Batch, FeedCounter, ProtocolMetric, Request, RequestEvent, Walk
from apps.pool.rendering import (
    batch_transactions,
    render_events,
    render_requests,
    shown_batch,
    shown_reason,
    shown_request,
)
from apps.pool.states import RequestKind, WalkStatus
from apps.pool.walk.halts import halt_shown

Row = TypeVar("Row", Request, Batch)


class PoolReads:
    """Each answer is read by few statements over all of its rows; what other services are asked comes besides."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context
        self._feed = LongPoll[None, int](self._look_at_feed)

    def request(self, request_id: str) -> shapes.Request:
        with self.context.readers() as session:
            row = session.get(Request, request_id)
            if row is None:
                raise NotFound("There is no request with this id.")
            return self.render(session, [row])[0]

    def requests(self, query: shapes.RequestsQuery) -> shapes.RequestPage:
        """Newest first; the cursor is the last id shown."""
        with self.context.readers() as session:
            filters = {"user_id": query.user_id, "status": query.status, "kind": query.kind, "pool_id": query.pool_id}
            rows = list(session.scalars(_newest(Request, query.limit, query.after, filters)))
            return shapes.RequestPage(*cut(self.render(session, rows), query.limit, lambda item: item.id))

    def batches(self, query: shapes.BatchesQuery) -> shapes.BatchPage:
        """Newest first; the cursor is the last id shown."""
        with transaction(self.context.sessions) as session:
            filters = {"status": query.status, "kind": query.kind, "pool_id": query.pool_id}
            rows = session.scalars(_newest(Batch, query.limit, query.after, filters)).all()
            transactions = batch_transactions(session, {row.id for row in rows})
            items = [shown_batch(row, transactions[row.id]) for row in rows]
            return shapes.BatchPage(*cut(items, query.limit, lambda item: item.id))

    def batch(self, batch_id: str) -> shapes.Batch:
        with transaction(self.context.sessions) as session:
            row = session.get(Batch, batch_id)
            if row is None:
                raise NotFound("There is no batch with this id.")
            return shown_batch(row, batch_transactions(session, {row.id})[row.id])

    def portfolio(self, query: PoolQuery, user_id: str) -> shapes.Portfolio:
        """What the books and the index say of a user; zeros for an unknown one."""
        pool_id = self.pool_of(query.pool_id)
        return shapes.Portfolio(
            pool_id=pool_id,
            user_id=user_id,
            balance=self.context.ledger.balance(pool_id, user_id),
            position=self.context.rewards.position(pool_id, user_id),
            requests=self.requests(shapes.RequestsQuery(pool_id=pool_id, user_id=user_id)).items,
        )

    def least_wei(self, kind: RequestKind) -> int:
        """The least amount that a request of a kind may name."""
        settings = self.context.settings
        return {RequestKind.STAKE: settings.min_stake_wei, RequestKind.UNSTAKE: settings.min_unstake_wei}.get(kind, 1)

    def stake_cap(self) -> Cap | None:
        """The most that one stake can be, by what protocols and the relayer say now; None where neither limits it."""
        limits = relayer_limits(self.context.relayer)
        with suppress(CallFailed, CallRefused):  # an unknown limit refuses nothing
            limits = limits.with_state(self.context.protocols.state())
        return limits.of_a_stake()

    def events(self, query: shapes.EventsQuery) -> shapes.EventPage:
        """Every change of a status that is committed by now; what was committed before comes before.

        Where there is none after the one last seen, `wait` seconds are waited for one at most; nothing is held meanwhile
        but the caller's thread. Where as many callers wait as may, the answer comes at once.
        """
        start, give_up = integer_cursor(query.after), time.monotonic() + query.wait
        number_events(self.context.sessions)
        while True:
            items = self._events_after(start, query.limit)
            left = give_up - time.monotonic()
            if items or not self._feed.wait(None, lambda last: last > start, left):
                return shapes.EventPage(items, items[-1].sequence if items else start)

    def _events_after(self, start: int, limit: int) -> list[shapes.Event]:
        wanted = select(RequestEvent).where(RequestEvent.sequence > start).order_by(RequestEvent.sequence).limit(limit)
        with transaction(self.context.sessions) as session:
            events = session.scalars(wanted).all()
            return render_events(session, events, self.context.settings.stake_batch_max_wait_sec)

    def _look_at_feed(self, keys: frozenset[None]) -> Mapping[None, int]:
        """The last sequence number of all that is committed by now."""
        number_events(self.context.sessions)
        with self.context.readers() as session:
            last = session.scalars(select(FeedCounter.last_sequence)).one()
        return dict.fromkeys(keys, last)

    def walk(self, query: PoolQuery) -> ShownWalk:
        """Where the walk stands and why it stands still, for ops."""
        with transaction(self.context.sessions) as session:
            row = session.get(Walk, self.pool_of(query.pool_id))
            if row is None:
                raise NotFound("This pool has not been walked yet.")
            return ShownWalk(
                pool_id=row.id,
                status=WalkStatus(row.status),
                reason=shown_reason(row.reason),
                halt=halt_shown(row.halt),
                block_number=row.cursor_block,
                log_index=None if row.cursor_log_index >= WHOLE_BLOCK else row.cursor_log_index,
                block_hash=row.cursor_block_hash,
                operator_shares=row.operator_shares,
                rewards_wei=row.rewards_wei,
                dust_wei=row.dust_wei,
                batches_paused=shown_reason(row.batches_paused),
                last_error=row.last_error,
            )

    def protocol_metrics(self, query: MetricsQuery) -> ProtocolMetricPage:
        """Snapshots, newest first."""
        wanted = select(ProtocolMetric).where(ProtocolMetric.pool_id == self.pool_of(query.pool_id))
        if query.after is not None:
            wanted = wanted.where(ProtocolMetric.block_number < integer_cursor(query.after))
        with transaction(self.context.sessions) as session:
            rows = session.scalars(wanted.order_by(ProtocolMetric.block_number.desc()).limit(query.limit + 1)).all()
        items = [
            ShownMetric(
                pool_id=row.pool_id,
                block_number=row.block_number,
                block_hash=row.block_hash,
                total_pooled_ether_wei=row.total_pooled_ether_wei,
                total_shares=row.total_shares,
                share_rate=row.share_rate,
                delta_wei=row.delta_wei,
                reward_wei=row.reward_wei,
            )
            for row in rows
        ]
        return ProtocolMetricPage(*cut(items, query.limit, lambda item: str(item.block_number)))

    def pool_of(self, given: str | None) -> str:
        """The pool that a query or a body names, or the service's own."""
        return given or self.context.settings.pool_id

    def render(self, session: Session, rows: list[Request]) -> list[shapes.Request]:
        """The `request` shape of rows, as they stand in this transaction."""
        return render_requests(session, rows, self.context.settings.stake_batch_max_wait_sec)

    def shown(self, row: Request, timeline: list[shapes.TimelineEntry]) -> shapes.Request:
        """The `request` shape of a row that has no withdrawals and no transactions yet."""
        return shown_request(row, timeline, self.context.settings.stake_batch_max_wait_sec)


def _newest(model: type[Row], limit: int, after: str | None, filters: Mapping[str, str | None]) -> Select[Row]:
    """One row more than the limit, which only says that there is more. Ids are ordered by time."""
    query = select(model).order_by(model.id.desc()).limit(limit + 1)
    for name, value in filters.items():
        if value is not None:
            query = query.where(getattr(model, name) == value)
    return query if after is None else query.where(model.id < after)
