"""What a POST that makes a request answers: the request as its first step left it, a replay as it stands, or its refusal."""

from collections.abc import Mapping

from sqlalchemy import select

from apps.clients.shapes import pool as shapes
from apps.common.database import transaction
from apps.common.idempotency import differing_fields, raise_reused
from apps.pool.context import PoolContext
from apps.pool.errors import REJECTIONS, RequestRejected, UserOnHold
from apps.pool.flows.requests import run_opened
from apps.pool.models import Request
from apps.pool.opening import Opened
from apps.pool.reads import PoolReads
from apps.pool.states import RequestKind, RequestStatus

# They know more than their row.
WITH_DETAILS = frozenset({RequestKind.PAYOUT, RequestKind.DEPOSIT})


class Answers:
    """Raises `RequestRejected` or a subclass for a request that ledger or index have refused."""

    def __init__(self, context: PoolContext, reads: PoolReads) -> None:
        self.context = context
        self.reads = reads

    def run(self, opened: Opened) -> shapes.Request:
        """Run the first step of a request that was made just now."""
        if not run_opened(self.context, opened) or opened.row.kind in WITH_DETAILS:
            return self.first(opened.row.id)
        raise_if_rejected(opened.row)
        return self.reads.shown(opened.row, opened.timeline)

    def first(self, request_id: str) -> shapes.Request:
        """A request as it stands after its first step."""
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Request).where(Request.id == request_id)).one()
            raise_if_rejected(row)
            return self.reads.render(session, [row])[0]

    def replay(self, message_id: str, canonical: Mapping[str, str | None]) -> shapes.Request:
        """The request that a message_id made; raises `MessageIdReused` where it was asked for otherwise, and `UserOnHold` where
        it made none."""
        found = self.known(message_id, canonical)
        if found is None:  # not stored, and not by a twin either
            raise UserOnHold
        return found

    def known(self, message_id: str, canonical: Mapping[str, str | None]) -> shapes.Request | None:
        """The same; None where the message_id is not known."""
        with transaction(self.context.sessions) as session:
            row = session.scalars(select(Request).where(Request.message_id == message_id)).one_or_none()
            if row is None:
                return None
            fields = differing_fields(canonical, row.body)
            if fields:
                raise_reused(fields)
            raise_if_rejected(row)
            return self.reads.render(session, [row])[0]


def raise_if_rejected(row: Request) -> None:
    if row.status == RequestStatus.REJECTED:
        why = row.reason or {}
        error = REJECTIONS.get(str(why.get("code")), RequestRejected)
        raise error(why.get("detail"), pool_request_id=row.id)
