"""What anybody may ask of the pool: requests, batches, portfolio, quotes, the feed, the walk. Nothing here writes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import transaction
from apps.common.errors import NotFound
from apps.common.shapes import dump
from apps.common.wire import integer_cursor, page
from apps.pool.context import PoolContext
from apps.pool.flows.limits import MAX_UNSTAKE_WEI, TOO_MUCH_TO_UNSTAKE, Cap, Limits, relayer_limits
from apps.pool.models import WHOLE_BLOCK, Batch, ProtocolMetric, Request, RequestEvent, Walk
from apps.pool.rendering import batch_transactions, render_batch, render_event, render_requests
from apps.pool.walk.halts import render_halt

Row = TypeVar("Row", Request, Batch)


class PoolReads:
    """Each answer is read in one transaction, but for what other services are asked."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context

    def request(self, request_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.get(Request, request_id)
            if row is None:
                raise NotFound("There is no request with this id.")
            return self.render(session, [row])[0]

    def requests(self, *, limit: int, after: str | None, **filters: str | None) -> dict[str, Any]:
        """Newest first; the cursor is the last id shown."""
        with transaction(self.context.sessions) as session:
            rows = list(session.scalars(_newest(Request, limit, after, filters)))
            return page(self.render(session, rows), limit, lambda item: str(item["id"]))

    def batches(self, *, limit: int, after: str | None, **filters: str | None) -> dict[str, Any]:
        """Newest first; the cursor is the last id shown."""
        with transaction(self.context.sessions) as session:
            rows = session.scalars(_newest(Batch, limit, after, filters)).all()
            transactions = batch_transactions(session, {row.id for row in rows})
            return page([render_batch(row, transactions[row.id]) for row in rows], limit, lambda item: str(item["id"]))

    def batch(self, batch_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.get(Batch, batch_id)
            if row is None:
                raise NotFound("There is no batch with this id.")
            return render_batch(row, batch_transactions(session, {row.id})[row.id])

    def portfolio(self, pool_id: str, user_id: str) -> dict[str, Any]:
        return {
            "pool_id": pool_id,
            "user_id": user_id,
            "balance": dump(self.context.ledger.balance(pool_id, user_id)),
            "position": dump(self.context.rewards.position(pool_id, user_id)),
            "requests": self.requests(limit=50, after=None, pool_id=pool_id, user_id=user_id)["items"],
        }

    def quote(self, kind: str, amount_wei: int) -> dict[str, Any]:
        """Limits now, and the expected time with its reason. The protocol's state is read fresh."""
        state = self.context.protocols.state()
        settings = self.context.settings
        limit = state.stake_limit
        limits = relayer_limits(self.context.relayer).with_state(state) if kind == "stake" else Limits()
        cap = limits.of_a_stake()
        if kind == "stake":
            paused = state.switches.staking_paused or state.switches.stopped
            allowed = limit.current_wei is None or amount_wei <= limit.current_wei
            code, detail = "batching", "Waits for its batch, then for the chain to confirm it."
            if paused:
                code, detail = (
                    "staking_paused",
                    "Staking is paused by the protocol; the request would wait in the queue.",
                )
            elif not allowed:
                code, detail = (
                    "stake_limit",
                    "Above the protocol's present stake limit; it would wait for it to refill.",
                )
            if cap is not None and amount_wei > cap.wei:
                code, detail = cap.code, cap.detail
            seconds_ = None if paused else int(settings.stake_batch_max_wait_sec)
            minimum, maximum = 1, None if cap is None else str(cap.wei)
        else:
            code, detail = "withdrawal_queue", "The protocol pays in its own order, usually within days."
            if state.switches.queue_paused or state.switches.stopped:
                code, detail = "queue_paused", "The withdrawal queue is paused; the request would wait."
            if amount_wei > MAX_UNSTAKE_WEI:
                code, detail = "unstake_above_limit", TOO_MUCH_TO_UNSTAKE
            seconds_, minimum, maximum = None, 100, str(MAX_UNSTAKE_WEI)
        return {
            "kind": kind,
            "amount_wei": str(amount_wei),
            "minimum_wei": str(minimum),
            "maximum_wei": maximum,
            "current_limit_wei": (
                str(limit.current_wei) if kind == "stake" and limit.current_wei is not None else None
            ),
            "expected_sec": seconds_,
            "reason": {"code": code, "detail": detail},
        }

    def stake_cap(self) -> Cap | None:
        """The most that one stake can be, by what protocols and the relayer say now; None where neither limits it."""
        limits = relayer_limits(self.context.relayer)
        with suppress(CallFailed, CallRefused):  # an unknown limit refuses nothing
            limits = limits.with_state(self.context.protocols.state())
        return limits.of_a_stake()

    def events(self, *, limit: int, after: str | None) -> dict[str, Any]:
        start = integer_cursor(after)
        query = select(RequestEvent).where(RequestEvent.sequence > start).order_by(RequestEvent.sequence).limit(limit)
        with transaction(self.context.sessions) as session:
            events = list(session.scalars(query))
            rows = list(session.scalars(select(Request).where(Request.id.in_({event.request_id for event in events}))))
            requests = {item["id"]: item for item in self.render(session, rows)}
            items = [render_event(event, requests[event.request_id]) for event in events]
        return {"items": items, "next": items[-1]["sequence"] if items else start}

    def walk(self, pool_id: str) -> dict[str, Any]:
        """Where the walk stands and why it stands still, for ops."""
        with transaction(self.context.sessions) as session:
            row = session.get(Walk, pool_id)
            if row is None:
                raise NotFound("This pool has not been walked yet.")
            return {
                "pool_id": row.id,
                "status": row.status,
                "reason": row.reason,
                "halt": render_halt(row.halt),
                "block_number": row.cursor_block,
                # None: the whole block is booked; a number: booked up to that log of it.
                "log_index": None if row.cursor_log_index >= WHOLE_BLOCK else row.cursor_log_index,
                "block_hash": row.cursor_block_hash,
                "operator_shares": str(row.operator_shares),
                "rewards_wei": str(row.rewards_wei),
                "dust_wei": str(row.dust_wei),
                "batches_paused": row.batches_paused,
                "last_error": row.last_error,
            }

    def protocol_metrics(self, pool_id: str, *, limit: int, after: str | None) -> dict[str, Any]:
        """Snapshots, newest first."""
        query = select(ProtocolMetric).where(ProtocolMetric.pool_id == pool_id)
        if after is not None:
            query = query.where(ProtocolMetric.block_number < integer_cursor(after))
        with transaction(self.context.sessions) as session:
            rows = session.scalars(query.order_by(ProtocolMetric.block_number.desc()).limit(limit + 1)).all()
        items = [
            {
                "pool_id": row.pool_id,
                "block_number": row.block_number,
                "block_hash": row.block_hash,
                "total_pooled_ether_wei": str(row.total_pooled_ether_wei),
                "total_shares": str(row.total_shares),
                "share_rate": str(row.share_rate),
                "delta_wei": None if row.delta_wei is None else str(row.delta_wei),
                "reward_wei": str(row.reward_wei),
            }
            for row in rows
        ]
        return page(items, limit, lambda item: str(item["block_number"]))

    def render(self, session: Session, rows: list[Request]) -> list[dict[str, Any]]:
        """The `request` shape of rows, as they stand in this transaction."""
        return render_requests(session, rows, self.context.settings.stake_batch_max_wait_sec)


def _newest(model: type[Row], limit: int, after: str | None, filters: Mapping[str, str | None]) -> Select[Row]:
    """One row more than the limit, which only says that there is more. Ids are ordered by time."""
    query = select(model).order_by(model.id.desc()).limit(limit + 1)
    for name, value in filters.items():
        if value is not None:
            query = query.where(getattr(model, name) == value)
    return query if after is None else query.where(model.id < after)
