"""What changes requests from outside: make one, cancel, retry; and ops' resuming of batches."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.idempotency import differing_fields, raise_reused
from apps.common.wire import new_id
from apps.pool.context import PoolContext
from apps.pool.errors import REJECTIONS, NotCancellable, NotRetryable, RequestRejected
from apps.pool.feed import record_events
from apps.pool.flows.leases import flow_event, new_lease, seconds
from apps.pool.flows.limits import MAX_UNSTAKE_WEI, TOO_MUCH_TO_UNSTAKE, Cap
from apps.pool.flows.reserving import run_request
from apps.pool.models import (
    Batch,
    Request,
    Resolution,
    Walk,
    parked_batches_of,
    requests_of,
)
from apps.pool.reads import PoolReads
from apps.pool.walk.resolutions import Resolutions

FIRST_STATUS = {"stake": "reserving", "unstake": "reserving", "reward_claim": "settling"}
STAKE_LIMIT_CACHE_SEC = 30.0


class PoolService:
    """Owns the transactions of the pool's endpoints."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context
        self.reads = PoolReads(context)
        self.resolutions = Resolutions(context)
        self._cap: tuple[float, Cap | None] = (float("-inf"), None)

    def create(self, kind: str, message_id: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Make a request and run its first step; returns it and whether this was a replay.

        `body` holds user_id, pool_id and, but for a reward claim, amount_wei (int, or "max" for an unstake).
        Raises `RequestRejected` or a subclass when the ledger or the index refuses (the row is kept, `rejected`), and
        `MessageIdReused`. A ledger that does not answer is no error: the request stays `reserving` and its flow
        finishes it.
        """
        canonical = {"kind": kind, **{name: None if value is None else str(value) for name, value in body.items()}}
        amount = body.get("amount_wei")
        if kind == "stake" and not self._known(message_id):
            self._refuse_above_limit(int(body["amount_wei"]))
        if kind == "unstake" and isinstance(amount, int) and amount > MAX_UNSTAKE_WEI and not self._known(message_id):
            raise InvalidInput(errors={"amount_wei": [TOO_MUCH_TO_UNSTAKE]})
        lease = new_lease()
        row = self._insert(kind, message_id, body, canonical, lease)
        if row is None:
            return self._replay(message_id, canonical), True
        run_request(self.context, row)
        return self._first_answer(row.id), False

    def cancel(self, request_id: str) -> dict[str, Any]:
        """Ask for a queued request to be undone and try at once; all is moved back, or the flow goes on trying."""
        lease = new_lease()
        with transaction(self.context.sessions) as session:
            row = session.scalar(select(Request).where(Request.id == request_id).with_for_update())
            if row is None:
                raise NotFound("There is no request with this id.")
            if row.status == "cancelled":
                return self.reads.render(session, [row])[0]
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
        return self.reads.request(request_id)

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
        return self.reads.request(request_id)

    def resume_batches(self, pool_id: str) -> dict[str, Any]:
        """Ops: open batches again after a drift paused them."""
        with transaction(self.context.sessions) as session:
            session.execute(update(Walk).where(Walk.id == pool_id).values(batches_paused=None))
        return self.reads.walk(pool_id)

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
            return self.reads.render(session, [row])[0]

    def _first_answer(self, request_id: str) -> dict[str, Any]:
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Request).where(Request.id == request_id)).one()
            _raise_if_rejected(row)
            return self.reads.render(session, [row])[0]

    def _retry_batch(self, session: Session, batch: Batch) -> None:
        adopted = select(Resolution.id).where(
            Resolution.batch_id == batch.id, Resolution.action == "adopt_as_batch", Resolution.status == "applied"
        )
        if session.scalar(adopted.limit(1)) is not None:
            # Its transaction was sent by hand: tried again, the batch would send its own beside it.
            raise NotRetryable("A transaction sent by hand was adopted as this batch's; the walk completes it.")
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
        read_at, cap = self._cap
        if now - read_at > STAKE_LIMIT_CACHE_SEC:
            cap = self.reads.stake_cap()
            self._cap = (now, cap)
        if cap is not None and amount_wei > cap.wei:
            text = f"Above {cap.wei} wei, the most that one stake can be now; split the amount. {cap.detail}"
            raise InvalidInput(errors={"amount_wei": [text]})


def _raise_if_rejected(row: Request) -> None:
    if row.status == "rejected":
        why = row.reason or {}
        error = REJECTIONS.get(str(why.get("code")), RequestRejected)
        raise error(why.get("detail"), pool_request_id=row.id)
