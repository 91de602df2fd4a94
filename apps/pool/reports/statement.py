"""A user's statement: the ledger's movements with the request, transaction and block behind each, and the index's days."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.clients.shapes import ledger as books
from apps.clients.shapes import reports as shapes
from apps.clients.shapes.rewards import Earnings
from apps.common.database import transaction
from apps.common.errors import InvalidInput
from apps.common.spans import span_of
from apps.common.wei import format_ether
from apps.common.wire import TX_HASH, format_time
from apps.pool.context import PoolContext
from apps.pool.models import BatchTransaction, Deposit, PayoutTransaction, Request, Withdrawal
from apps.pool.reports.causes import Cause, cause_of
from apps.pool.states import TransactionStatus

# Movements that stand for a transfer of the request's own. What a payout gives back stands for none.
OWN_TRANSFERS = frozenset({"withdrawal", "deposit"})
MOST_MOVEMENTS = 10_000
PAGE = 200
# Which transaction of its batch a movement of a request stands for. The others stand for none: they are the books' own.
PURPOSES = {
    "stake_confirm": "submit",
    "unstake_cut": "request",
    "unstake_settle": "claim",
    "unstake_shortfall": "claim",
}


def statement(context: PoolContext, user_id: str, query: shapes.StatementQuery) -> shapes.Statement:
    """A user's account over a span that ends now at the latest.

    Raises `InvalidInput` where the span is empty, too long, or has more than `MOST_MOVEMENTS`.
    """
    pool_id = query.pool_id or context.settings.pool_id
    with transaction(context.sessions) as session:
        start, end = span_of(query, session)
    page, lines = _ledger(context, pool_id, user_id, start, end)
    # Both services are asked about the same span: the ledger's clock may be behind the pool's.
    earned = context.rewards.earnings(pool_id, user_id, format_time(start), format_time(page.end))
    with transaction(context.sessions) as session:
        origins = _origins(session, user_id, lines)
    return shapes.Statement(
        pool_id=pool_id,
        user_id=user_id,
        start=start,
        end=page.end,
        opening=_end(page.opening, earned.opening_wei),
        movements=[_movement(line, origins[line.id]) for line in lines],
        days=_days(earned),
        closing=_end(page.closing, earned.closing_wei),
        fee_wei=earned.fee_wei,
        fee_eth=_eth(earned.fee_wei),
        apr=earned.apr,
    )


@dataclass(frozen=True)
class Origin:
    """The request, transaction and block behind a movement, as far as there are."""

    request_id: str | None = None
    tx_hash: str | None = None
    block_number: int | None = None


def _ledger(
    context: PoolContext, pool_id: str, user_id: str, start: datetime, end: datetime
) -> tuple[books.Statement, list[books.StatementLine]]:
    """The first page, which holds both ends, and the lines of all pages."""
    first = page = context.ledger.statement(pool_id, user_id, format_time(start), format_time(end), limit=PAGE)
    lines = list(page.lines)
    while page.next is not None:
        if len(lines) >= MOST_MOVEMENTS:
            few = f"More than {MOST_MOVEMENTS} movements; ask for a shorter span."
            raise InvalidInput(errors={"from": [few]})
        # The end that the first page was cut at: what has happened since is of no page.
        span = format_time(first.start), format_time(first.end)
        page = context.ledger.statement(pool_id, user_id, *span, after=page.next, limit=PAGE)
        lines += page.lines
    return first, lines


def _origins(session: Session, user_id: str, lines: Iterable[books.StatementLine]) -> dict[int, Origin]:
    causes = {line.id: cause_of(line.message_id) for line in lines}
    withdrawals = _withdrawals(session, causes.values())
    wanted = {cause.request_id for cause in causes.values()} | {row.request_id for row in withdrawals.values()}
    requests = {
        row.id: row.batch_id
        for row in session.execute(
            select(Request.id, Request.batch_id).where(Request.id.in_(wanted - {None}), Request.user_id == user_id)
        )
    }
    batches = {*requests.values(), *(row.claim_batch_id for row in withdrawals.values())} - {None}
    mined = {
        (row.batch_id, row.purpose): (row.tx_hash, row.block_number)
        for row in session.scalars(
            select(BatchTransaction).where(
                BatchTransaction.batch_id.in_(batches), BatchTransaction.status == TransactionStatus.CONFIRMED
            )
        )
    }
    own = _own_transfers(session, user_id, causes.values())
    return {line.id: _origin(line, causes[line.id], withdrawals, requests, mined, own) for line in lines}


def _own_transfers(session: Session, user_id: str, causes: Iterable[Cause]) -> dict[str, Origin]:
    """The transfers of a user's payouts by their requests, and of deposits by their hashes."""
    payouts = {cause.request_id for cause in causes} - {None}
    hashes = {cause.tx_hash for cause in causes} - {None}
    paid = (
        select(PayoutTransaction)
        .join(Request, Request.id == PayoutTransaction.request_id)
        .where(
            PayoutTransaction.request_id.in_(payouts),
            PayoutTransaction.status == TransactionStatus.CONFIRMED,
            Request.user_id == user_id,
        )
    )
    booked = (
        select(Deposit)
        .join(Request, Request.id == Deposit.request_id)
        .where(Deposit.tx_hash.in_(hashes), Request.user_id == user_id)
    )
    found = {row.request_id: Origin(row.request_id, row.tx_hash, row.block_number) for row in session.scalars(paid)}
    for row in session.scalars(booked):
        found[row.tx_hash] = Origin(row.request_id, row.tx_hash, row.block_number)
    return found


def _withdrawals(session: Session, causes: Iterable[Cause]) -> dict[int, Withdrawal]:
    ids = {cause.withdrawal_id for cause in causes} - {None}
    found = session.scalars(select(Withdrawal).where(Withdrawal.withdrawal_id.in_(ids)))
    return {row.withdrawal_id: row for row in found}


def _origin(
    line: books.StatementLine,
    cause: Cause,
    withdrawals: Mapping[int, Withdrawal],
    requests: Mapping[str, str | None],
    mined: Mapping[tuple[str, str], tuple[str | None, int | None]],
    own_of: Mapping[str, Origin],
) -> Origin:
    withdrawal = withdrawals.get(cause.withdrawal_id or 0)
    request_id = cause.request_id if withdrawal is None else withdrawal.request_id
    own = own_of.get(cause.request_id or cause.tx_hash or "")
    if own is not None and line.kind in OWN_TRANSFERS:
        return Origin(own.request_id, own.tx_hash, own.block_number)
    if request_id is None or request_id not in requests:  # the other is a name that a caller chose
        if line.kind == "deposit" and line.reference is not None and TX_HASH.fullmatch(line.reference):
            return Origin(tx_hash=line.reference)
        return Origin(block_number=cause.block_number)
    batch_id = requests[request_id] if withdrawal is None else withdrawal.claim_batch_id
    tx_hash, block_number = mined.get((batch_id or "", PURPOSES.get(line.kind, "")), (None, None))
    return Origin(request_id, tx_hash, block_number)


def _movement(line: books.StatementLine, origin: Origin) -> shapes.StatementMovement:
    return shapes.StatementMovement(
        id=line.id,
        at=line.created_at,
        kind=line.kind,
        amount_wei=line.amount_wei,
        amount_eth=_eth(line.amount_wei),
        source=line.source,
        target=line.target,
        after=line.after,
        message_id=line.message_id,
        request_id=origin.request_id,
        tx_hash=origin.tx_hash,
        block_number=origin.block_number,
    )


def _days(earned: Earnings) -> list[shapes.StatementDay]:
    return [
        shapes.StatementDay(day.date, day.earned_wei, _eth(day.earned_wei), day.fee_wei, _eth(day.fee_wei))
        for day in earned.days
    ]


def _end(buckets: books.Buckets, earned_wei: int) -> shapes.StatementEnd:
    return shapes.StatementEnd(buckets, earned_wei, _eth(earned_wei))


def _eth(wei: int) -> str:
    return format_ether(wei, 18)
