"""What changes requests from outside: make one, cancel, retry; and ops' resuming of batches."""

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.clients.shapes import pool as shapes
from apps.clients.shapes.common import PoolQuery
from apps.clients.shapes.walk import Walk as ShownWalk
from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.flow.runner import unpark
from apps.pool.answers import Answers
from apps.pool.context import PoolContext
from apps.pool.errors import LaterRelease, NotCancellable, NotRetryable
from apps.pool.feed import record_events
from apps.pool.flows.limits import MAX_UNSTAKE_WEI, TOO_MUCH_TO_UNSTAKE, Cap
from apps.pool.flows.members import unpark_members
from apps.pool.flows.payout import CANCEL, NOT_HANDED_OVER, transfer_in
from apps.pool.flows.requests import intend, run_request
from apps.pool.models import (
    Batch,
    Request,
    Resolution,
    Walk,
    parked_batches_of,
)
from apps.pool.opening import begun, open_request
from apps.pool.payouts.addresses import PayoutAddresses
from apps.pool.payouts.deposits import Deposits
from apps.pool.payouts.resolutions import PayoutResolutions
from apps.pool.payouts.service import Payouts
from apps.pool.reads import PoolReads
from apps.pool.states import FIRST_STATUS, BatchStatus, RequestKind, RequestStatus, ResolutionStatus
from apps.pool.walk.resolutions import Resolutions

Wanted = shapes.NewStake | shapes.NewUnstake | shapes.NewRewardClaim

STAKE_LIMIT_CACHE_SEC = 30.0


class PoolService:
    """Owns the transactions of the pool's endpoints."""

    def __init__(self, context: PoolContext) -> None:
        self.context = context
        self.reads = PoolReads(context)
        self.answers = Answers(context, self.reads)
        self.resolutions = Resolutions(context)
        self.payouts = Payouts(context, self.answers)
        self.payout_addresses = PayoutAddresses(context)
        self.payout_resolutions = PayoutResolutions(context)
        self.deposits = Deposits(context, self.answers)
        self._cap: tuple[float, Cap | None] = (float("-inf"), None)

    def create(self, kind: RequestKind, message_id: str, wanted: Wanted) -> tuple[shapes.Request, bool]:
        """Make a request and run its first step; returns it and whether this was a replay. The caller has settled its
        `message_id`: the body's or the header's.

        Raises `RequestRejected` or a subclass when the ledger or the index refuses (the row is kept, `rejected`),
        `MessageIdReused`, and `UserOnHold` where ops keep the user from it, which leaves the message_id free. A ledger that
        does not answer is no error: the request stays `reserving` and its flow finishes it.
        """
        amount = None if isinstance(wanted, shapes.NewRewardClaim) else wanted.amount_wei
        pool_id = self.reads.pool_of(wanted.pool_id)
        canonical = {"kind": kind.value, "user_id": wanted.user_id, "pool_id": pool_id}
        if amount is not None:
            canonical["amount_wei"] = str(amount)
        wei = None if amount == shapes.MAX else amount
        outside = self._outside_limits(kind, wei)
        if outside is not None and not self._known(message_id):
            raise InvalidInput(errors={"amount_wei": [outside]})
        row = Request(
            message_id=message_id,
            body=canonical,
            kind=kind,
            pool_id=pool_id,
            user_id=wanted.user_id,
            amount_wei=wei,
            **begun(kind),
        )
        opened = open_request(self.context.writer, row, self.context.settings.lease_sec)
        if opened is None:
            return self.answers.replay(message_id, canonical), True
        return self.answers.run(opened), False

    def cancel(self, request_id: str) -> shapes.Request:
        """Ask for a queued request, or a payout that was not handed to the relayer, to be undone, and try at once; all is moved
        back, or the flow goes on trying.

        Raises `NotFound`, `NotCancellable`, and `LaterRelease` where this release does not know the request's steps.
        """
        with transaction(self.context.sessions) as session:
            row = session.scalar(select(Request).where(Request.id == request_id).with_for_update())
            if row is None:
                raise NotFound("There is no request with this id.")
            if row.status == RequestStatus.CANCELLED:
                return self.reads.render(session, [row])[0]
            _check_cancellable(session, row)
            _refuse_later(row)
            already = row.intent == CANCEL
            if not already:
                intend(session, row, CANCEL, "cancel_requested", self.context.settings.lease_sec)
        if not already:
            run_request(self.context, row)
        return self.reads.request(request_id)

    def retry(self, request_id: str) -> shapes.Request:
        """Put a parked request, or the parked batch it is part of, back to the step where it stopped.

        Raises `NotFound`, `NotRetryable`, and `LaterRelease` where this release does not know its steps.
        """
        with transaction(self.context.sessions) as session:
            row = session.scalar(select(Request).where(Request.id == request_id))
            if row is None:
                raise NotFound("There is no request with this id.")
            if row.status != RequestStatus.NEEDS_ATTENTION:
                raise NotRetryable(f"The request is {row.status}; only one in needs_attention can be retried.")
            _refuse_later(row)
            parked = session.scalars(
                select(Batch)
                .where(Batch.status == BatchStatus.NEEDS_ATTENTION, parked_batches_of(row))
                .with_for_update()
            ).all()
            if parked:
                for batch in parked:
                    _refuse_later(batch)
                    self._retry_batch(session, batch)
            else:
                session.refresh(row, with_for_update=True)
                if row.status != RequestStatus.NEEDS_ATTENTION:  # another caller was first, since this one looked
                    raise NotRetryable(f"The request is {row.status} by now.")
                unpark(session, row, FIRST_STATUS[RequestKind(row.kind)])
                record_events(session, [row.id])
        self.context.publish("tasks.sweep.wake", None)
        return self.reads.request(request_id)

    def resume_batches(self, query: PoolQuery) -> ShownWalk:
        """Ops: open batches again after a drift paused them."""
        with transaction(self.context.sessions) as session:
            walk = session.get(Walk, self.reads.pool_of(query.pool_id), with_for_update=True)
            if walk is not None:
                walk.batches_paused = None
        return self.reads.walk(query)

    def _known(self, message_id: str) -> bool:
        with transaction(self.context.sessions) as session:
            return session.scalar(select(Request.id).where(Request.message_id == message_id)) is not None

    def _retry_batch(self, session: Session, batch: Batch) -> None:
        adopted = select(Resolution.id).where(
            Resolution.batch_id == batch.id,
            Resolution.action == "adopt_as_batch",
            Resolution.status == ResolutionStatus.APPLIED,
        )
        if session.scalar(adopted.limit(1)) is not None:
            # Its transaction was sent by hand: tried again, the batch would send its own beside it.
            raise NotRetryable("A transaction sent by hand was adopted as this batch's; the walk completes it.")
        unpark(session, batch, BatchStatus.BATCHED)
        session.flush()
        unpark_members(session, batch, batch.status)

    def _outside_limits(self, kind: RequestKind, amount_wei: int | None) -> str | None:
        """Why an amount is below the least that the operator of this service takes, or could never be submitted; an
        unknown limit refuses nothing, the batch waits instead."""
        if amount_wei is None:
            return None
        least_wei = self.reads.least_wei(kind)
        if amount_wei < least_wei:
            return f"Below {least_wei} wei, the least amount of one {kind}."
        if kind == RequestKind.UNSTAKE:
            return TOO_MUCH_TO_UNSTAKE if amount_wei > MAX_UNSTAKE_WEI else None
        now = time.monotonic()
        read_at, cap = self._cap
        if now - read_at > STAKE_LIMIT_CACHE_SEC:
            cap = self.reads.stake_cap()
            self._cap = (now, cap)
        if cap is None or amount_wei <= cap.wei:
            return None
        return f"Above {cap.wei} wei, the most that one stake can be now; split the amount. {cap.detail}"


def _refuse_later(row: Request | Batch) -> None:
    """What a later release began with other steps is left to it, as workers leave it too (`apps.flow.lease`)."""
    if row.flow_version > row.current_version:
        raise LaterRelease


def _check_cancellable(session: Session, row: Request) -> None:
    """Raise unless nothing was done for this request that could not be taken back. The caller has locked it."""
    if row.kind == RequestKind.PAYOUT and row.status in NOT_HANDED_OVER:
        if row.intent not in {None, CANCEL}:
            raise NotCancellable("It is being given back already.")
        if transfer_in(session, row.id) is None:
            return
    elif row.status == RequestStatus.QUEUED:
        return
    raise NotCancellable(f"The request is {row.status}; {NotCancellable.__doc__}")
