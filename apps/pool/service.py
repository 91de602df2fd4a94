"""What the BFF calls: make a request, look at requests, cancel, retry, portfolio, quotes, feed."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import differing_fields, raise_reused
from apps.common.wire import integer_cursor, new_id, page
from apps.pool.context import PoolContext
from apps.pool.errors import REJECTIONS, NotCancellable, NotRetryable, RequestRejected
from apps.pool.feed import record_events
from apps.pool.leases import flow_event, new_lease, seconds
from apps.pool.models import (
    WHOLE_BLOCK,
    Batch,
    ProtocolMetric,
    Request,
    RequestEvent,
    Walk,
    parked_batches_of,
    requests_of,
)
from apps.pool.rendering import batch_transactions, render_batch, render_event, render_requests
from apps.pool.reserving import run_request

FIRST_STATUS = {"stake": "reserving", "unstake": "reserving", "reward_claim": "settling"}
STAKE_LIMIT_CACHE_SEC = 30.0


class PoolService:
    """Owns the transactions of the pool's endpoints."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context
        self._limit: tuple[float, int | None] = (float("-inf"), None)

    def create(self, kind: str, message_id: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Make a request and run its first step; returns it and whether this was a replay.

        `body` holds user_id, pool_id and, but for a reward claim, amount_wei (int, or "max" for an unstake).
        Raises `RequestRejected` or a subclass when the ledger or the index refuses (the row is kept, `rejected`), and
        `MessageIdReused`. A ledger that does not answer is no error: the request stays `reserving` and its flow
        finishes it.
        """
        canonical = {"kind": kind, **{name: None if value is None else str(value) for name, value in body.items()}}
        if kind == "stake":
            known = self._known(message_id)
            if not known:
                self._refuse_above_limit(int(body["amount_wei"]))
        lease = new_lease()
        row = self._insert(kind, message_id, body, canonical, lease)
        if row is None:
            return self._replay(message_id, canonical), True
        run_request(self.context, row)
        return self._first_answer(row.id), False

    def request(self, request_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.get(Request, request_id)
            if row is None:
                raise NotFound("There is no request with this id.")
            return self._render(session, [row])[0]

    def requests(self, *, limit: int, after: str | None, **filters: str | None) -> dict[str, Any]:
        """Newest first; the cursor is the last id shown."""
        query = select(Request).order_by(Request.id.desc()).limit(limit + 1)
        for name, value in filters.items():
            if value is not None:
                query = query.where(getattr(Request, name) == value)
        if after is not None:
            query = query.where(Request.id < after)
        with transaction(self.context.sessions) as session:
            rows = list(session.scalars(query))
            return page(self._render(session, rows), limit, lambda item: str(item["id"]))

    def batches(self, *, limit: int, after: str | None, **filters: str | None) -> dict[str, Any]:
        query = select(Batch).order_by(Batch.id.desc()).limit(limit + 1)
        for name, value in filters.items():
            if value is not None:
                query = query.where(getattr(Batch, name) == value)
        if after is not None:
            query = query.where(Batch.id < after)
        with transaction(self.context.sessions) as session:
            rows = list(session.scalars(query))
            transactions = batch_transactions(session, {row.id for row in rows})
            return page([render_batch(row, transactions[row.id]) for row in rows], limit, lambda item: str(item["id"]))

    def batch(self, batch_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.get(Batch, batch_id)
            if row is None:
                raise NotFound("There is no batch with this id.")
            return render_batch(row, batch_transactions(session, {row.id})[row.id])

    def cancel(self, request_id: str) -> dict[str, Any]:
        """Ask for a queued request to be undone and try at once; all is moved back, or the flow goes on trying."""
        lease = new_lease()
        with transaction(self.context.sessions) as session:
            row = session.scalar(select(Request).where(Request.id == request_id).with_for_update())
            if row is None:
                raise NotFound("There is no request with this id.")
            if row.status == "cancelled":
                return self._render(session, [row])[0]
            if row.status != "queued":
                raise NotCancellable(f"The request is {row.status}; only a queued one can be cancelled.")
            already = row.intent == "cancel"
            if not already:
                row.intent = "cancel"
                row.next_run_at = func.now()
                row.lease_token, row.lease_until = lease, func.now() + seconds(self.context.settings.lease_sec)
                row.attempts = 1
                session.add(flow_event(row, "cancel_requested", row.status, None))
                session.flush()
                session.refresh(row)
        if not already:
            run_request(self.context, row)
        return self.request(request_id)

    def retry(self, request_id: str) -> dict[str, Any]:
        """Put a parked request, or the parked batch it is part of, back to the step where it stopped."""
        with transaction(self.context.sessions) as session:
            row = session.scalar(select(Request).where(Request.id == request_id))
            if row is None:
                raise NotFound("There is no request with this id.")
            if row.status != "needs_attention":
                raise NotRetryable(f"The request is {row.status}; only one in needs_attention can be retried.")
            parked = session.scalars(
                select(Batch).where(Batch.status == "needs_attention", parked_batches_of(row)).with_for_update()
            ).all()
            if parked:
                for batch in parked:
                    self._retry_batch(session, batch)
            else:
                row = session.scalars(select(Request).where(Request.id == request_id).with_for_update()).one()
                row.status = str(row.context.get("parked_status", FIRST_STATUS[row.kind]))
                row.reason, row.attempts, row.next_run_at = None, 0, func.now()
                session.add(flow_event(row, "retried", row.status, None))
                record_events(session, [row.id])
        self.context.publish("tasks.sweep.wake", None)
        return self.request(request_id)

    def portfolio(self, pool_id: str, user_id: str) -> dict[str, Any]:
        return {
            "pool_id": pool_id,
            "user_id": user_id,
            "balance": self.context.ledger.balance(pool_id, user_id),
            "position": self.context.rewards.position(pool_id, user_id),
            "requests": self.requests(limit=50, after=None, pool_id=pool_id, user_id=user_id)["items"],
        }

    def quote(self, kind: str, amount_wei: int) -> dict[str, Any]:
        """Limits now, and the expected time with its reason. The protocol's state is read fresh."""
        state = self.context.protocols.state()
        settings = self.context.settings
        limit = state["stake_limit"]
        if kind == "stake":
            paused = state["switches"]["staking_paused"] or state["switches"]["stopped"]
            allowed = limit["current_wei"] is None or amount_wei <= int(limit["current_wei"])
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
            seconds_ = None if paused else int(settings.stake_batch_max_wait_sec)
            minimum, maximum = 1, limit["max_wei"]
        else:
            code, detail = "withdrawal_queue", "The protocol pays in its own order, usually within days."
            if state["switches"]["queue_paused"] or state["switches"]["stopped"]:
                code, detail = "queue_paused", "The withdrawal queue is paused; the request would wait."
            seconds_, minimum, maximum = None, 100, None
        return {
            "kind": kind,
            "amount_wei": str(amount_wei),
            "minimum_wei": str(minimum),
            "maximum_wei": maximum,
            "current_limit_wei": limit["current_wei"] if kind == "stake" else None,
            "expected_sec": seconds_,
            "reason": {"code": code, "detail": detail},
        }

    def events(self, *, limit: int, after: str | None) -> dict[str, Any]:
        start = integer_cursor(after)
        query = select(RequestEvent).where(RequestEvent.sequence > start).order_by(RequestEvent.sequence).limit(limit)
        with transaction(self.context.sessions) as session:
            events = list(session.scalars(query))
            rows = list(session.scalars(select(Request).where(Request.id.in_({event.request_id for event in events}))))
            requests = {item["id"]: item for item in self._render(session, rows)}
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

    def resume_batches(self, pool_id: str) -> dict[str, Any]:
        """Ops: open batches again after a drift paused them."""
        with transaction(self.context.sessions) as session:
            session.execute(update(Walk).where(Walk.id == pool_id).values(batches_paused=None))
        return self.walk(pool_id)

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

    def _known(self, message_id: str) -> bool:
        with transaction(self.context.sessions) as session:
            return session.scalar(select(Request.id).where(Request.message_id == message_id)) is not None

    def _insert(
        self, kind: str, message_id: str, body: Mapping[str, Any], canonical: dict[str, Any], lease: str
    ) -> Request | None:
        amount = body.get("amount_wei")
        statement = (
            insert(Request)
            .values(
                id=new_id(),
                message_id=message_id,
                body=canonical,
                kind=kind,
                pool_id=body["pool_id"],
                user_id=body["user_id"],
                amount_wei=amount if isinstance(amount, int) else None,
                status=FIRST_STATUS[kind],
                attempts=1,
                next_run_at=func.now(),
                lease_token=lease,
                lease_until=func.now() + seconds(self.context.settings.lease_sec),
            )
            .on_conflict_do_nothing(index_elements=["message_id"])
            .returning(Request)
        )
        with transaction(self.context.sessions) as session:
            row = session.scalars(statement).one_or_none()
            if row is not None:
                session.add(flow_event(row, "created", row.status, None))
                record_events(session, [row.id])
            return row

    def _replay(self, message_id: str, canonical: dict[str, Any]) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Request).where(Request.message_id == message_id)).one()
            fields = differing_fields(canonical, row.body)
            if fields:
                raise_reused(fields)
            _raise_if_rejected(row)
            return self._render(session, [row])[0]

    def _first_answer(self, request_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Request).where(Request.id == request_id)).one()
            _raise_if_rejected(row)
            return self._render(session, [row])[0]

    def _render(self, session: Session, rows: list[Request]) -> list[dict[str, Any]]:
        return render_requests(session, rows, self.context.settings.stake_batch_max_wait_sec)

    def _retry_batch(self, session: Session, batch: Batch) -> None:
        status = str(batch.context.get("parked_status", "batched"))
        batch.status, batch.reason, batch.attempts, batch.next_run_at = status, None, 0, func.now()
        session.add(flow_event(batch, "retried", status, None))
        changed = session.scalars(
            update(Request)
            .where(requests_of(batch), Request.status == "needs_attention")
            .values(
                status="claiming" if batch.kind == "claim" else status, reason=None, updated_at=func.clock_timestamp()
            )
            .returning(Request.id)
        ).all()
        record_events(session, changed)

    def _refuse_above_limit(self, amount_wei: int) -> None:
        """Refuse what could never be submitted; an unknown limit refuses nothing, the batch waits instead."""
        now = time.monotonic()
        read_at, maximum = self._limit
        if now - read_at > STAKE_LIMIT_CACHE_SEC:
            try:
                text = self.context.protocols.state()["stake_limit"]["max_wei"]
            except (CallFailed, CallRefused):
                text = None
            maximum = None if text is None else int(text)
            self._limit = (now, maximum)
        if maximum is not None and amount_wei > maximum:
            text = f"Above the protocol's maximum stake limit of {maximum} wei; split the amount."
            raise InvalidInput(errors={"amount_wei": [text]})


def _raise_if_rejected(row: Request) -> None:
    if row.status == "rejected":
        why = row.reason or {}
        error = REJECTIONS.get(str(why.get("code")), RequestRejected)
        raise error(why.get("detail"), pool_request_id=row.id)
