"""The claim of finalized withdrawal NFTs, from the poll to the ETH in custody; it ends the unstakes that are waiting.

    batched --build--> claiming --(the walk meets each WithdrawalClaimed log)--> completed

Nothing is credited by a step: the walk pays each request what its log says. A batch that cannot be built or sent is dropped,
and a later poll looks again at what each NFT is by then: after a pause that doubles with each failure, and in halves where
it is not known which NFT was at fault. Until a claim is built its requests stay `waiting`, with the reason: what fails
again and again changes no status again and again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, case, func, or_, select, text, update
from sqlalchemy.orm import Session

from apps.clients.base import CallFailed, CallRefused
from apps.clients.ledger import movement
from apps.clients.shapes.history import HistoryItem
from apps.clients.shapes.ledger import NewMovement
from apps.clients.shapes.protocols import ReceiptClaim, WithdrawalStatus
from apps.common.database import one_of, transaction
from apps.common.wire import new_id
from apps.flow.outcome import Advance, Outcome, Park
from apps.flow.row import Reason, reason, seconds
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.feed import change_requests
from apps.pool.flows.lanes import user_lanes
from apps.pool.flows.members import insert_batch
from apps.pool.flows.transactions import Confirmed, Failed, follow, store, stored, wait_for_walk
from apps.pool.flows.waiting import explain_waiting
from apps.pool.models import Batch, CompanyWithdrawal, Request, Walk, Withdrawal, requests_of
from apps.pool.states import BatchKind, BatchStatus, RequestStatus
from apps.pool.walk.booking import Item, WalkHalted, post_effects
from apps.pool.walk.passing import claim_log, claim_logs, complete_batch, pass_item

log = structlog.get_logger(__name__)

IDS_PER_STATUS_CALL = 1000
IDS_PER_CLAIM = 100
AGAIN_SEC, AGAIN_MOST_SEC = 30.0, 900.0
KEEPS_FAILING = 4  # failures of one NFT's claim: the alert `ClaimsKeepFailing`
# Refusals about every NFT alike, so that halves would fail alike. Others are tried in halves until the one is found.
ABOUT_ALL = frozenset({"custody_refuses_eth", "protocol_stopped", "not_configured", "unknown_signer", "wrong_signer"})
REFUSED_BY_CUSTODY = "CantSendValueRecipientMayHaveReverted()"  # as the relayer decodes the queue's own error


def poll_open(context: PoolContext) -> int:
    """Look at every open NFT, one call per thousand, and open claim batches for the finalized; returns how many."""
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(Withdrawal.withdrawal_id, Withdrawal.pool_id)
            .where(Withdrawal.paid_wei.is_(None), Withdrawal.claim_batch_id.is_(None), _may_be_tried())
            .order_by(Withdrawal.withdrawal_id)
        ).all()
    opened = 0
    seen: list[WithdrawalStatus] = []
    for pool_id in sorted({row.pool_id for row in rows}):
        ids = [row.withdrawal_id for row in rows if row.pool_id == pool_id]
        for start in range(0, len(ids), IDS_PER_STATUS_CALL):
            opened += _poll_some(context, pool_id, ids[start : start + IDS_PER_STATUS_CALL], seen)
    explain_waiting(context, seen)
    return opened


def build(context: PoolContext, batch: Batch) -> Outcome:
    """Build the one claim of the batch's NFTs, ids sorted and hints found by protocols."""
    ids = _unpaid(context, batch)
    if not ids:
        return Advance(BatchStatus.COMPLETED, run_in_sec=None)
    try:
        unsigned = context.protocols.build_claim(ids)
    except CallRefused as refusal:
        bad = _named(refusal)
        if bad.issuperset(ids) or bad.isdisjoint(ids):
            return drop(batch, refusal.code, refusal.detail)
        # One bad id must not hold up the others: it is let go, and the rest is built again.
        why = reason(refusal.code, refusal.detail)
        return Advance(BatchStatus.BATCHED, reason=why, write=lambda session: _free(session, batch, bad, why))

    def write(session: Session) -> None:
        store(session, batch, "claim", unsigned)
        _start(session, batch)

    return Advance(BatchStatus.CLAIMING, write=write)


def claim(context: PoolContext, batch: Batch) -> Outcome:
    """Send and follow the claim until the walk has met its logs."""
    if stored(context, batch, "claim") is None:
        return Park(reason("transaction_missing", "The claim's transaction was not stored."))
    sent = follow(context, batch, "claim")
    if isinstance(sent, Confirmed):
        return wait_for_walk(context, batch)
    if not isinstance(sent, Failed):
        return sent
    return drop(batch, "custody_refuses_eth" if sent.detail == REFUSED_BY_CUSTODY else sent.code, sent.detail)


CLAIM_STEPS = {BatchStatus.BATCHED: build, BatchStatus.CLAIMING: claim}


def drop(batch: Batch, code: str, detail: str) -> Advance:
    """Give up the batch; whatever was wrong with one of its NFTs, a later poll sees what each is by then."""
    why = reason(code, detail)
    return Advance(
        BatchStatus.FAILED, reason=why, run_in_sec=None, write=lambda session: _free(session, batch, None, why)
    )


@dataclass(frozen=True)
class Payment:
    """A claim that the walk has met, and the withdrawal that it paid: a user's, or the company's own."""

    item: Item
    log: ReceiptClaim
    row: Withdrawal | CompanyWithdrawal

    @property
    def missing_wei(self) -> int:
        """What it paid less than was asked for."""
        return max(0, self.row.amount_wei - self.log.amount_wei)


def book_claims(context: PoolContext, walk: Walk, items: Sequence[Item]) -> None:
    """The walk meets claims of ours, next to each other: each request gets what the chain really paid, and bears what is
    missing to its face."""
    logs = claim_logs(context, items)
    custody = context.settings.custody_address or ""
    for log in logs:
        if log.receiver.lower() != custody.lower():
            raise WalkHalted("claim_paid_elsewhere", f"Withdrawal {log.withdrawal_id} was paid to {log.receiver}.")
    known = _withdrawals(context, [log.withdrawal_id for log in logs])
    for log in logs:
        if log.withdrawal_id not in known:
            raise WalkHalted("unknown_withdrawal", f"Withdrawal {log.withdrawal_id} belongs to no request.")
    pay(context, walk, [Payment(item, log, known[log.withdrawal_id]) for item, log in zip(items, logs, strict=True)])


def is_usual(context: PoolContext, item: HistoryItem) -> bool:
    """Whether a claim is of a withdrawal known here and paid custody, so that nothing about it is for ops to decide."""
    log = claim_log(context, item)
    to_custody = log.receiver.lower() == (context.settings.custody_address or "").lower()
    return to_custody and log.withdrawal_id in _withdrawals(context, [log.withdrawal_id])


def pay(context: PoolContext, walk: Walk, payments: Sequence[Payment]) -> None:
    """Credit the requests of paid withdrawals, complete each with its last one, and pass the last of the items."""
    with transaction(context.sessions) as session:
        of_users = [payment.row.request_id for payment in payments if isinstance(payment.row, Withdrawal)]
        users = dict(session.execute(select(Request.id, Request.user_id).where(one_of(Request.id, of_users))).all())
    rows = [row for payment in payments for row in _movements_of(walk, payment, users)]
    with user_lanes(context, walk.id, users.values()):
        post_effects(context, walk, [row for row in rows if row.amount_wei > 0])
        with transaction(context.sessions) as session:
            pass_item(context, session, walk, payments[-1].item, operations=len(payments))
            _note_paid(session, payments)


def _poll_some(context: PoolContext, pool_id: str, ids: Sequence[int], seen: list[WithdrawalStatus]) -> int:
    """Open claim batches for up to a thousand NFTs; what each is goes to `seen`."""
    try:
        statuses = context.protocols.withdrawal_status(ids)
    except (CallFailed, CallRefused) as error:
        bad = _named(error) if isinstance(error, CallRefused) else set()
        if bad and not bad.issuperset(ids):
            log.error("withdrawals_unknown", withdrawal_ids=sorted(bad))
            return _poll_some(context, pool_id, [number for number in ids if number not in bad], seen)
        log.warning("claim_polling_waits", why=str(error))
        return 0
    seen += statuses
    operator = (context.settings.operator_address or "").lower()
    foreign = [item.withdrawal_id for item in statuses if item.owner.lower() != operator]
    if foreign:
        # Whoever holds it now is paid; reconciliation shows the drift. The others are claimed all the same.
        log.error("withdrawals_foreign", withdrawal_ids=foreign)
    # An NFT that is claimed already is left to the walk: its WithdrawalClaimed log is on its way.
    ready = sorted(
        item.withdrawal_id
        for item in statuses
        if item.finalized and not item.claimed and item.withdrawal_id not in foreign
    )
    opened = [_open(context, pool_id, some) for some in _together(context, ready)]
    for batch_id in opened:
        if batch_id is not None:
            context.publish("tasks.batches.advance", batch_id)
    return sum(batch_id is not None for batch_id in opened)


def _open(context: PoolContext, pool_id: str, ids: Sequence[int]) -> str | None:
    with transaction(context.sessions) as session:
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext('claims'), hashtext(:pool))"), {"pool": pool_id})
        rows = session.scalars(
            select(Withdrawal)
            .where(
                Withdrawal.withdrawal_id.in_(ids), Withdrawal.paid_wei.is_(None), Withdrawal.claim_batch_id.is_(None)
            )
            .order_by(Withdrawal.withdrawal_id)
            .with_for_update(skip_locked=True)
        ).all()
        if not rows:
            return None
        batch = Batch(
            id=new_id(),
            kind=BatchKind.CLAIM,
            pool_id=pool_id,
            amount_wei=sum(row.amount_wei for row in rows),
            request_count=len({row.request_id for row in rows}),
        )
        insert_batch(session, batch, {"withdrawals": [row.withdrawal_id for row in rows]})
        for row in rows:
            row.claim_batch_id = batch.id
        return batch.id


def _unpaid(context: PoolContext, batch: Batch) -> list[int]:
    with transaction(context.sessions) as session:
        query = select(Withdrawal.withdrawal_id).where(
            Withdrawal.claim_batch_id == batch.id, Withdrawal.paid_wei.is_(None)
        )
        return list(session.scalars(query.order_by(Withdrawal.withdrawal_id)))


def _may_be_tried() -> ColumnElement[bool]:
    return or_(Withdrawal.claim_after.is_(None), Withdrawal.claim_after <= func.now())


def _together(context: PoolContext, ids: Sequence[int]) -> list[list[int]]:
    """Which NFTs go into one claim: a hundred, or as few as the failures of larger claims leave to each."""
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(Withdrawal.withdrawal_id, Withdrawal.claim_at_most)
            .where(Withdrawal.withdrawal_id.in_(ids))
            .order_by(func.coalesce(Withdrawal.claim_at_most, IDS_PER_CLAIM).desc(), Withdrawal.withdrawal_id)
        ).all()
    found: list[list[int]] = []
    room = 0
    for row in rows:
        most = min(IDS_PER_CLAIM, row.claim_at_most or IDS_PER_CLAIM)
        if not found or len(found[-1]) >= min(room, most):
            found.append([])
            room = most
        found[-1].append(row.withdrawal_id)
        room = min(room, most)
    return found


def _start(session: Session, batch: Batch) -> None:
    """The claim is built: its requests are on their way."""
    change_requests(
        session, requests_of(batch), Request.status == RequestStatus.WAITING, status=RequestStatus.CLAIMING, reason=None
    )


def _free(session: Session, batch: Batch, ids: Collection[int] | None, why: Reason) -> None:
    """Let go of the batch's unpaid NFTs, or of some of them, for a while: a later poll sees what each is by then.

    One failure of many together may be one's own: they are tried in halves at once, and only those that fail alone, or
    for what concerns them all, wait longer each time.
    """
    chosen = [Withdrawal.claim_batch_id == batch.id, Withdrawal.paid_wei.is_(None)]
    count = session.scalar(select(func.count()).select_from(Withdrawal).where(*chosen)) or 0
    if ids is not None:
        chosen.append(Withdrawal.withdrawal_id.in_(ids))
    pause = func.least(AGAIN_MOST_SEC, AGAIN_SEC * func.power(2, func.least(Withdrawal.claim_failures, 10)))
    values: dict[str, object] = {
        "claim_batch_id": None,
        "claim_failures": Withdrawal.claim_failures + 1,
        "claim_after": func.now() + seconds(pause),
    }
    if ids is None and count > 1 and why["code"] not in ABOUT_ALL:
        values = {"claim_batch_id": None, "claim_at_most": count // 2}
    freed = session.execute(
        update(Withdrawal).where(*chosen).values(**values).returning(Withdrawal.request_id, Withdrawal.claim_failures),
        execution_options={"synchronize_session": False},
    ).all()
    if any(row.claim_failures >= KEEPS_FAILING for row in freed):
        log.error("claims_keep_failing", batch_id=batch.id, withdrawals=len(freed), why=why)
    still = select(Withdrawal.request_id).where(Withdrawal.claim_batch_id == batch.id, Withdrawal.paid_wei.is_(None))
    change_requests(
        session,
        one_of(Request.id, [row.request_id for row in freed]),
        Request.id.not_in(still),
        or_(Request.status == RequestStatus.CLAIMING, Request.reason["code"].astext.is_distinct_from(why["code"])),
        Request.status.in_((RequestStatus.WAITING, RequestStatus.CLAIMING)),
        status=RequestStatus.WAITING,
        reason=why,
    )


def _named(refusal: CallRefused) -> set[int]:
    """The withdrawal ids that a refusal names."""
    return {int(number) for number in refusal.errors.get("withdrawal_ids", [])}


def _withdrawals(context: PoolContext, ids: Sequence[int]) -> dict[int, Withdrawal | CompanyWithdrawal]:
    """The withdrawals with these numbers that are known here."""
    with transaction(context.sessions) as session:
        users = session.scalars(select(Withdrawal).where(Withdrawal.withdrawal_id.in_(ids))).all()
        companys = session.scalars(select(CompanyWithdrawal).where(CompanyWithdrawal.withdrawal_id.in_(ids))).all()
    known: dict[int, Withdrawal | CompanyWithdrawal] = {row.withdrawal_id: row for row in companys}
    return known | {row.withdrawal_id: row for row in users}


def _movements_of(walk: Walk, payment: Payment, users: Mapping[str, str]) -> list[NewMovement]:
    """What a paid withdrawal is in the books: its payment, and what is missing to its face."""
    row, number, paid, missing = payment.row, payment.row.withdrawal_id, payment.log.amount_wei, payment.missing_wei
    if isinstance(row, CompanyWithdrawal):
        # The company's own: its stETH has become ETH of its float, less what a slashing took.
        name, less = effects.company_claim(number), effects.company_shortfall(number)
        return [
            movement(name, "company_claim", walk.id, None, paid, reference=payment.item.tx_hash),
            movement(less, "fees_lost", walk.id, None, missing),
        ]
    user_id, name, less = users[row.request_id], effects.withdrawal_paid(number), effects.withdrawal_shortfall(number)
    return [
        movement(name, "unstake_settle", walk.id, user_id, paid, reference=row.request_id),
        movement(less, "unstake_shortfall", walk.id, user_id, missing, reference=row.request_id),
    ]


def _note_paid(session: Session, payments: Sequence[Payment]) -> None:
    """Note what NFTs paid; a request is completed with its last one, a claim batch likewise."""
    of_users = [payment for payment in payments if isinstance(payment.row, Withdrawal)]
    of_company = [payment for payment in payments if isinstance(payment.row, CompanyWithdrawal)]
    ids = [payment.row.withdrawal_id for payment in of_users]
    claimed = {
        row.withdrawal_id: row.claim_batch_id
        for row in session.execute(
            select(Withdrawal.withdrawal_id, Withdrawal.claim_batch_id).where(Withdrawal.withdrawal_id.in_(ids))
        )
    }
    batches = session.scalars(
        select(Batch).where(Batch.id.in_(set(claimed.values()) - {None})).order_by(Batch.id).with_for_update()
    ).all()
    requests = sorted({payment.row.request_id for payment in of_users if isinstance(payment.row, Withdrawal)})
    session.execute(select(Request.id).where(one_of(Request.id, requests)).order_by(Request.id).with_for_update())
    _set_paid(session, Withdrawal, of_users)
    _set_paid(session, CompanyWithdrawal, of_company)
    for batch in batches:
        left = session.scalar(
            select(func.count()).where(Withdrawal.claim_batch_id == batch.id, Withdrawal.paid_wei.is_(None))
        )
        if left == 0 and batch.status != BatchStatus.FAILED:
            last = [payment.item for payment in of_users if claimed[payment.row.withdrawal_id] == batch.id][-1]
            complete_batch(session, batch, last)
    _move_paid(session, requests)


def _set_paid(session: Session, table: type[Withdrawal] | type[CompanyWithdrawal], payments: Sequence[Payment]) -> None:
    paid = {payment.row.withdrawal_id: payment.log.amount_wei for payment in payments}
    if paid:
        session.execute(
            update(table)
            .where(table.withdrawal_id.in_(paid))
            .values(paid_wei=case(paid, value=table.withdrawal_id, else_=table.paid_wei)),
            execution_options={"synchronize_session": False},
        )


def _move_paid(session: Session, requests: Sequence[str]) -> None:
    """Complete the requests whose NFTs are all paid; those whose others are not claimed yet wait again."""
    mine = Withdrawal.request_id == Request.id
    unpaid = select(Withdrawal.withdrawal_id).where(mine, Withdrawal.paid_wei.is_(None)).correlate(Request)
    settled = select(func.sum(Withdrawal.paid_wei)).where(mine).correlate(Request).scalar_subquery()
    some = one_of(Request.id, requests)
    completed = RequestStatus.COMPLETED
    change_requests(session, some, ~unpaid.exists(), status=completed, settled_wei=settled, reason=None)
    claiming = unpaid.where(Withdrawal.claim_batch_id.is_not(None))
    change_requests(session, some, unpaid.exists(), ~claiming.exists(), status=RequestStatus.WAITING)
