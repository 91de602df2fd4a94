"""Payouts as they are asked for and decided: the limits, the row, the second person."""

import time
from contextlib import suppress

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.shapes import pool as shapes
from apps.clients.shapes.payouts import NewPayout
from apps.common.database import transaction
from apps.common.errors import InvalidInput, NotFound
from apps.common.wei import exact_int
from apps.common.wire import format_time
from apps.flow.lease import flow_event
from apps.flow.row import reason
from apps.pool.answers import Answers
from apps.pool.context import PoolContext
from apps.pool.errors import (
    AddressNotAllowed,
    AddressNotUsableYet,
    NotApproving,
    PayoutHouseLimit,
    PayoutUserLimit,
)
from apps.pool.feed import record_events
from apps.pool.flows.payout import REFUSE
from apps.pool.flows.requests import intend, run_request
from apps.pool.four_eyes import check_second_person
from apps.pool.models import Payout, PayoutAddress, Request
from apps.pool.opening import begun, open_within
from apps.pool.states import REQUEST_TERMINAL, RequestKind, RequestStatus

CAP_CACHE_SEC = 30.0
DAY = text("interval '24 hours'")


class Payouts:
    """Owns the transactions of the payout endpoints."""

    def __init__(self, context: PoolContext, answers: Answers) -> None:
        self.context = context
        self.answers = answers
        self._cap: tuple[float, int | None] = (float("-inf"), None)

    def create(self, message_id: str, wanted: NewPayout) -> tuple[shapes.Request, bool]:
        """Make a payout and set its ETH aside; returns it and whether this was a replay.

        The user's addresses and the limits of the day are looked at in the transaction that stores the row, one payout of a
        pool at a time: what fifty callers ask for at once passes no limit. Nothing is kept of a payout that they refuse.
        Raises `AddressNotAllowed`, `AddressNotUsableYet`, `PayoutUserLimit`, `PayoutHouseLimit`, `RequestRejected` or a
        subclass, `MessageIdReused`.
        """
        pool_id = self.answers.reads.pool_of(wanted.pool_id)
        canonical = {
            "kind": RequestKind.PAYOUT.value,
            "user_id": wanted.user_id,
            "pool_id": pool_id,
            "amount_wei": str(wanted.amount_wei),
            "to": wanted.to,
            "by": wanted.by,
        }
        known = self.answers.known(message_id, canonical)
        if known is not None:
            return known, True
        self._check_cap(wanted.amount_wei)
        row = Request(
            message_id=message_id,
            body=canonical,
            kind=RequestKind.PAYOUT,
            pool_id=pool_id,
            user_id=wanted.user_id,
            amount_wei=wanted.amount_wei,
            **begun(RequestKind.PAYOUT),
        )
        above = self.context.settings.payout_four_eyes_wei
        payout = Payout(
            request_id=row.id,
            pool_id=pool_id,
            user_id=wanted.user_id,
            amount_wei=wanted.amount_wei,
            to_address=wanted.to,
            needs_approval=0 < above < wanted.amount_wei,
            asked_by=wanted.by,
        )
        with transaction(self.context.sessions) as session:
            lock = text("SELECT pg_advisory_xact_lock(hashtext('payouts'), hashtext(:pool))")
            session.execute(lock, {"pool": pool_id})
            there = session.scalar(select(Request.id).where(Request.message_id == message_id)) is not None
            if not there:
                _check_address(session, wanted)
                self._check_limits(session, pool_id, wanted)
            opened = None if there else open_within(session, row, self.context.settings.lease_sec)
            if opened is not None:
                session.add(payout)
        if opened is None:
            return self.answers.replay(message_id, canonical), True
        return self.answers.run(opened), False

    def approve(self, request_id: str, by: str) -> shapes.Request:
        """The second person agrees. Raises `SecondPersonNeeded` for whoever asked, `NotApproving`."""
        with transaction(self.context.sessions) as session:
            row = self._approving(session, request_id, by)
            row.status, row.next_run_at = RequestStatus.SENDING, func.now()
            session.add(flow_event(row, "approved", row.status, {"by": by}))
            record_events(session, [row.id])
        self.context.publish("tasks.requests.advance", request_id)
        return self.answers.reads.request(request_id)

    def reject(self, request_id: str, by: str) -> shapes.Request:
        """Somebody says no, the one who asked included; the ETH is given back. Raises `NotApproving`."""
        with transaction(self.context.sessions) as session:
            row = self._approving(session, request_id, by, agrees=False)
            row.reason = reason("approval_refused", f"{by} refused it.")
            intend(session, row, REFUSE, "refused", self.context.settings.lease_sec)
        run_request(self.context, row)
        return self.answers.reads.request(request_id)

    def _approving(self, session: Session, request_id: str, by: str, *, agrees: bool = True) -> Request:
        """The payout, locked, which waits for a second person and now has one."""
        row = session.scalars(select(Request).where(Request.id == request_id).with_for_update()).one_or_none()
        if row is None or row.kind != RequestKind.PAYOUT:
            raise NotFound("There is no payout with this id.")
        if row.status != RequestStatus.APPROVING or row.intent is not None:
            raise NotApproving(f"The payout is {row.status}, and waits for nobody's word.")
        payout = session.get_one(Payout, request_id)
        if agrees:
            check_second_person(by, payout.asked_by, payout.user_id)
        payout.decided_by, payout.decided_at = by, func.clock_timestamp()
        return row

    def _check_limits(self, session: Session, pool_id: str, wanted: NewPayout) -> None:
        """What was asked for in the last 24 hours and is paid, or may be: what was given back counts no more."""
        settings = self.context.settings
        lately = (
            select(func.coalesce(func.sum(Payout.amount_wei), 0))
            .join(Request, Request.id == Payout.request_id)
            .where(
                Payout.pool_id == pool_id,
                Payout.created_at > func.now() - DAY,
                Request.status.not_in(REQUEST_TERMINAL - {RequestStatus.COMPLETED}),
            )
        )
        for limit, query, error in (
            (settings.payout_user_day_limit_wei, lately.where(Payout.user_id == wanted.user_id), PayoutUserLimit),
            (settings.payout_day_limit_wei, lately, PayoutHouseLimit),
        ):
            if limit == 0:
                continue
            left = max(0, limit - exact_int(session.scalar(query)))
            if wanted.amount_wei > left:
                raise error(f"Of {limit} wei in 24 hours {left} are left.")

    def _check_cap(self, amount_wei: int) -> None:
        """Refuse what the relayer would never sign; an unknown cap refuses nothing."""
        now = time.monotonic()
        read_at, cap = self._cap
        if now - read_at > CAP_CACHE_SEC:
            with suppress(CallFailed, CallRefused):
                found = self.context.relayer.limits()
                caps = (found.max_payout_per_tx_wei, found.max_payout_per_day_wei, found.max_value_per_tx_wei)
                cap = min(one for one in caps if one is not None)
            self._cap = (now, cap)
        if cap is not None and amount_wei > cap:
            raise InvalidInput(errors={"amount_wei": [f"Above {cap} wei, the most that one payout can be."]})


def _check_address(session: Session, wanted: NewPayout) -> None:
    mine = PayoutAddress.user_id == wanted.user_id, PayoutAddress.address == wanted.to
    usable = (PayoutAddress.usable_at <= func.now()).label("usable")
    found = session.execute(
        # Removed meanwhile it would be paid all the same: so the removal waits for this, or this sees it.
        select(PayoutAddress.usable_at, usable)
        .where(*mine, PayoutAddress.removed_at.is_(None))
        .with_for_update(read=True)
    ).one_or_none()
    if found is None:
        raise AddressNotAllowed
    if not found.usable:
        raise AddressNotUsableYet(f"{wanted.to} can be paid from {format_time(found.usable_at)} on.")
