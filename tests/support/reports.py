"""Statements and lineages added up again, by nothing but what they say."""

from datetime import datetime

from sqlalchemy import select

from apps.clients.shapes.reports import Statement, StatementQuery, TransactionRequestsQuery
from apps.common.database import transaction
from apps.common.wire import format_time, parse_time
from apps.pool.context import PoolContext
from apps.pool.models import BatchTransaction, Request
from apps.pool.reads import PoolReads
from apps.pool.reports.lineage import lineage, requests_of_transaction
from apps.pool.reports.statement import statement
from apps.pool.states import RequestStatus, TransactionStatus

BUCKETS = ("available", "reserved", "staked", "unstaking")
LONG_AGO = "2026-01-01T00:00:00Z"


def check_statement(context: PoolContext, user_id: str) -> Statement:
    """The whole of a user's past, and the same in two pieces: every line follows from the one before, the ends are the balance
    and the position. Returns the whole."""
    whole = statement(context, user_id, _span(LONG_AGO, None))
    balance, position = context.ledger.balance(whole.pool_id, user_id), context.rewards.position(whole.pool_id, user_id)
    held = dict.fromkeys(BUCKETS, 0)
    assert _buckets(whole.opening.buckets) == held
    for line in whole.movements:
        held = {
            name: held[name] + line.amount_wei * ((name == line.target) - (name == line.source)) for name in BUCKETS
        }
        assert _buckets(line.after) == held
        assert line.amount_eth.replace(".", "").lstrip("0") == str(line.amount_wei)
    assert _buckets(whole.closing.buckets) == held == _buckets(balance)
    assert whole.closing.earned_wei == position.claimed_wei + position.pending_wei
    assert sum(day.earned_wei for day in whole.days) == whole.closing.earned_wei - whole.opening.earned_wei
    if len(whole.movements) > 1:
        _check_pieces(context, user_id, whole, whole.movements[len(whole.movements) // 2].at)
    return whole


def check_lineages(context: PoolContext) -> int:
    """Each transaction that a batch had confirmed moved what its requests asked for, wherever one begins to count; returns how
    many there were."""
    with transaction(context.sessions) as session:
        sent = session.execute(
            select(BatchTransaction.tx_hash, BatchTransaction.block_number).where(
                BatchTransaction.status == TransactionStatus.CONFIRMED, BatchTransaction.purpose != "approve"
            )
        ).all()
        done = session.scalars(
            select(Request.id).where(Request.status == RequestStatus.COMPLETED, Request.kind != "reward_claim")
        ).all()
    for tx_hash, block_number in sent:
        found = requests_of_transaction(context, str(tx_hash), TransactionRequestsQuery(limit=200))
        assert found.value_wei == found.requests_wei == sum(item.amount_wei for item in found.items), found
        assert found.block_number == block_number is not None
    for request_id in done:
        _check_lineage(context, request_id)
    return len(sent)


def _check_lineage(context: PoolContext, request_id: str) -> None:
    found = lineage(context, PoolReads(context), request_id)
    all_logs = [log for batch in found.batches for sent in batch.transactions for log in sent.logs]
    logs = {name: sum(log.of_request_wei for log in all_logs if log.event == name) for name in EVENTS}
    moved = {kind: sum(item.amount_wei for item in found.movements if item.kind == kind) for kind in KINDS}
    if found.request.kind == "stake":
        assert logs["Submitted"] == moved["stake_confirm"] == moved["stake_reserve"] - moved["stake_release"]
    else:
        assert logs["WithdrawalClaimed"] == moved["unstake_settle"] == found.request.settled_wei
        face = moved["unstake_settle"] + moved["unstake_shortfall"]
        assert logs["WithdrawalRequested"] == face


EVENTS = ("Submitted", "WithdrawalRequested", "WithdrawalClaimed")
KINDS = ("stake_reserve", "stake_release", "stake_confirm", "unstake_settle", "unstake_shortfall")


def _check_pieces(context: PoolContext, user_id: str, whole: Statement, at: datetime) -> None:
    first = statement(context, user_id, _span(LONG_AGO, format_time(at)))
    second = statement(context, user_id, _span(format_time(at), format_time(whole.end)))
    assert [*first.movements, *second.movements] == whole.movements
    assert first.closing == second.opening
    assert second.closing == whole.closing


def _span(start: str, end: str | None) -> StatementQuery:
    return StatementQuery(start=parse_time(start), end=None if end is None else parse_time(end), format="json")


def _buckets(found: object) -> dict[str, int]:
    return {name: getattr(found, f"{name}_wei") for name in BUCKETS}
