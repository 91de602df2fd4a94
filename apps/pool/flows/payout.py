"""A payout, from the POST to its end: a user's ETH leaves custody for an address that the user has allowed.

    reserving --(ledger sets the ETH aside)--> [approving --(a second person)-->] sending --(the payee is looked at, the
    transfer stored, then handed to the relayer)--> confirming --(the walk books the transfer in its block)--> completed

The ETH is given back in two cases alone. Before the transfer is stored: that it is not to be sent is written on the row
(`intent`) first, and nothing is stored afterwards. Once it is stored: the relayer says that it ended without effect, at the
money horizon. Silence, an unknown message and a conflict are no such word. A payout asks for one transfer under one name, ever.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from apps.clients.base import CallRefused
from apps.clients.ledger import movement
from apps.clients.shapes.ledger import NewMovement
from apps.clients.shapes.payouts import AccountKind
from apps.clients.shapes.relayer import NewTransaction, Transaction
from apps.common.database import one_of, transaction
from apps.ethereum.constants import TRANSFER_GAS
from apps.flow.lease import flow_event
from apps.flow.outcome import Advance, Outcome, Park, Wait
from apps.flow.row import Reason, reason
from apps.pool import effects
from apps.pool.context import PoolContext
from apps.pool.feed import change_requests
from apps.pool.flows.stake import CONFLICT, rejected
from apps.pool.flows.transactions import Confirmed, Failed, standing
from apps.pool.models import Payout, PayoutAddress, PayoutTransaction, Request, Resolution, Walk
from apps.pool.states import (
    REQUEST_TERMINAL,
    WITHOUT_EFFECT,
    RequestKind,
    RequestStatus,
    ResolutionStatus,
    TransactionStatus,
    WalkStatus,
)
from apps.pool.users.holds import held_users
from apps.pool.users.models import UserHold
from apps.pool.walk.booking import REUSED

# The relayer's name for a transfer out of the house, which it holds against caps of its own.
PURPOSE = "payout"
# Why a payout is not to be sent, on its row before anything is done about it.
CANCEL, REFUSE, GIVE_BACK, PAID = "cancel", "refuse", "give_back", "paid"
# In these a payout may still be taken back, as long as its transfer is not stored.
NOT_HANDED_OVER = frozenset({RequestStatus.APPROVING, RequestStatus.SENDING})
RELEASE_PAYOUT, CONFIRM_PAYOUT = "release_payout", "confirm_payout"
# A key's account that runs other code needs more than a plain one; its owner can burn no more than this.
DELEGATED_GAS = 100_000
# The relayer's reason for a conflict where a transaction that it does not know did the very same.
DONE_ELSEWHERE = "done_by_foreign_transaction"
HELD_SEC = 10.0
POLL_SEC = 5.0  # the relayer hints when it has ended

log = structlog.get_logger(__name__)


def reserve(context: PoolContext, request: Request) -> Outcome:
    """Set the ETH aside in the ledger."""
    payout = payout_of(context, request)
    try:
        _post(context, request, effects.payout_reserve(request.id), "withdrawal", payout.to_address)
    except CallRefused as refusal:
        if refusal.status != CONFLICT:  # only the books' own verdict ends a request
            raise
        return rejected(refusal.code, refusal.detail)
    if payout.needs_approval:
        return Advance(RequestStatus.APPROVING, run_in_sec=None)
    return Advance(RequestStatus.SENDING, wake=(("tasks.requests.advance", request.id),))


def take_back(context: PoolContext, request: Request) -> Outcome:
    """Give the ETH back of a payout that is not to be sent, as its row says."""
    if request.intent is None:
        raise LookupError("this payout has a step of its own only once it is decided that it is not to be sent")
    cancelled = request.intent == CANCEL
    return _give_back(context, request, None if cancelled else request.reason, cancelled=cancelled)


def send(context: PoolContext, request: Request) -> Outcome:
    """Look at the payee once more and store the transfer; then, at the next run, hand it to the relayer."""
    stored = transfer_of(context, request.id)
    if stored is not None:
        try:
            _hand_over(context, stored)
        except CallRefused as refusal:
            if refusal.code == REUSED:
                return _differs(stored)
            raise
        return Advance(RequestStatus.CONFIRMING, run_in_sec=POLL_SEC)
    if request.intent is not None:
        return take_back(context, request)
    held = _held_up(context, request)
    if held is not None:
        return Wait(HELD_SEC, held)
    payout = payout_of(context, request)
    if not _is_allowed(context, payout):
        why = reason("address_not_allowed", f"{payout.to_address} is not among the user's payout addresses any more.")
        return Advance(RequestStatus.SENDING, {"intent": GIVE_BACK}, reason=why)
    account = context.protocols.account(payout.to_address)
    if account.refused is not None or account.kind == AccountKind.CONTRACT:
        why = reason("payout_target_refused", f"{payout.to_address} is {account.refused or 'a contract'} now.")
        return Advance(RequestStatus.SENDING, {"intent": GIVE_BACK}, reason=why)
    transfer = PayoutTransaction(
        message_id=effects.payout_send(request.id),
        request_id=request.id,
        from_address=str(context.settings.custody_address),
        to_address=payout.to_address,
        value_wei=payout.amount_wei,
        gas_limit=TRANSFER_GAS if account.kind == AccountKind.PLAIN else DELEGATED_GAS,
        status=TransactionStatus.QUEUED,
    )
    return Advance(RequestStatus.SENDING, write=lambda session: session.add(transfer))


def confirm(context: PoolContext, request: Request) -> Outcome:
    """Follow the transfer until the walk has booked it, or it is settled without effect."""
    stored = transfer_of(context, request.id)
    assert stored is not None  # it was handed over, and is never removed
    found = context.relayer.transaction(stored.message_id)
    sent = _hand_over(context, stored) if found is None else _remember(context, found)
    if not is_ours(stored, sent):
        return Park(
            reason("payout_differs", f"The relayer's {sent.message_id} is another transfer than was asked for.")
        )
    stands = standing(sent)
    if isinstance(stands, Confirmed):
        context.publish("tasks.walk.run_pool", request.pool_id)
        return Wait(POLL_SEC)
    if isinstance(stands, Failed):
        why = reason(stands.code, stands.detail)
        return _give_back(context, request, why, cancelled=sent.status == TransactionStatus.CANCELLED)
    return Wait(POLL_SEC, stands.reason) if isinstance(stands, Wait) else stands


def decided(context: PoolContext, request: Request) -> Outcome:
    """Do what ops have decided about a parked payout: give its ETH back, or book the transaction that has paid it."""
    if request.intent != PAID:
        why = _may_have_effect(context, request)
        return take_back(context, request) if why is None else Park(why)
    name = effects.payout_send(request.id)
    with transaction(context.sessions) as session:
        resolution = session.scalars(
            select(Resolution)
            .where(
                Resolution.effect == name,
                Resolution.action == CONFIRM_PAYOUT,
                Resolution.status == ResolutionStatus.APPLIED,
            )
            .order_by(Resolution.id.desc())
            .limit(1)
        ).one()
    tx_hash, amount_wei = str(resolution.tx_hash), _wei(request)
    rows = [_paid(request.pool_id, request.id, amount_wei, tx_hash)]
    if resolution.gas_cost_wei:
        gas = effects.gas_by_hand(tx_hash)
        rows.append(movement(gas, "gas_spent", request.pool_id, None, resolution.gas_cost_wei, reference=tx_hash))
    context.ledger.post_batch(rows)
    return Advance(RequestStatus.COMPLETED, {"settled_wei": amount_wei}, run_in_sec=None)


PAYOUT_STEPS = {
    (RequestKind.PAYOUT, RequestStatus.RESERVING): reserve,
    (RequestKind.PAYOUT, RequestStatus.APPROVING): take_back,
    (RequestKind.PAYOUT, RequestStatus.SENDING): send,
    (RequestKind.PAYOUT, RequestStatus.CONFIRMING): confirm,
    # A parked payout is due only once ops have decided about it.
    (RequestKind.PAYOUT, RequestStatus.NEEDS_ATTENTION): decided,
}


def paid_among(context: PoolContext, pool_id: str, sent: Sequence[Transaction]) -> list[Transaction]:
    """Which of the relayer's final transactions are transfers of this pool's payouts that are to be booked now.

    A transfer that nobody here asked for, or of another content, is not among them: what it took is missing in the books,
    which reconciliation shows.
    """
    confirmed = (one for one in sent if one.status == TransactionStatus.CONFIRMED)
    by_name = {one.message_id: one for one in confirmed if one.purpose == PURPOSE}
    if not by_name:
        return []
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(PayoutTransaction, Request.status)
            .join(Request, Request.id == PayoutTransaction.request_id)
            .where(one_of(PayoutTransaction.message_id, list(by_name)), Request.pool_id == pool_id)
        ).all()
    found = []
    for stored, status in rows:
        one = by_name[stored.message_id]
        if status in REQUEST_TERMINAL - {RequestStatus.COMPLETED} or not is_ours(stored, one):
            log.error("payout_not_booked", message_id=one.message_id, status=status, tx_hash=one.tx_hash)
            continue
        found.append(one)
    return found


def paid_rows(pool_id: str, paid: Sequence[Transaction]) -> list[NewMovement]:
    """The movements that book transfers which the walk has come to."""
    return [_paid(pool_id, _request_id(one), one.value_wei, one.tx_hash) for one in paid]


def complete_paid(session: Session, paid: Sequence[Transaction]) -> None:
    """End the payouts of booked transfers, whatever their own steps are doing: the checkpoints of those find the lease gone."""
    if not paid:
        return
    ids = [_request_id(one) for one in paid]
    open_ = one_of(Request.id, ids), Request.status.not_in(REQUEST_TERMINAL)
    for row in session.scalars(select(Request).where(*open_).order_by(Request.id).with_for_update()):
        session.add(flow_event(row, "completed", RequestStatus.COMPLETED, None))
    change_requests(
        session,
        *open_,
        status=RequestStatus.COMPLETED,
        settled_wei=Request.amount_wei,
        reason=None,
        parked_status=None,
        next_run_at=None,
        lease_token=None,
        lease_until=None,
    )
    for one in sorted(paid, key=lambda one: one.message_id):
        _note(session, one)


def is_ours(stored: PayoutTransaction, sent: Transaction) -> bool:
    """Whether what the relayer has under a payout's name is the transfer that the payout asked for."""
    asked = stored.from_address.lower(), stored.to_address.lower(), stored.value_wei, "0x"
    return asked == (sent.sender.lower(), sent.to.lower(), sent.value_wei, sent.data)


def payout_of(context: PoolContext, request: Request) -> Payout:
    with transaction(context.sessions) as session:
        return session.get_one(Payout, request.id)


def transfer_of(context: PoolContext, request_id: str) -> PayoutTransaction | None:
    """The transfer of a payout, once it was stored."""
    with transaction(context.sessions) as session:
        return transfer_in(session, request_id)


def transfer_in(session: Session, request_id: str) -> PayoutTransaction | None:
    return session.scalars(select(PayoutTransaction).where(PayoutTransaction.request_id == request_id)).one_or_none()


def _differs(stored: PayoutTransaction) -> Park:
    """Its name is another transfer's for ever, so that this one can never be sent."""
    return Park(reason("payout_differs", f"The relayer's {stored.message_id} is another transfer than was asked for."))


def _hand_over(context: PoolContext, stored: PayoutTransaction) -> Transaction:
    """Give the transfer to the relayer; again is harmless. Returns the relayer's view."""
    sent = context.relayer.send(
        NewTransaction(
            message_id=stored.message_id,
            purpose=PURPOSE,
            sender=stored.from_address,
            to=stored.to_address,
            data="0x",
            value_wei=stored.value_wei,
            gas_limit=stored.gas_limit,
        )
    )
    return _remember(context, sent)


def _remember(context: PoolContext, sent: Transaction) -> Transaction:
    with transaction(context.sessions) as session:
        _note(session, sent)
    return sent


def _note(session: Session, sent: Transaction) -> None:
    changed = PayoutTransaction.status != sent.status, PayoutTransaction.tx_hash.is_distinct_from(sent.tx_hash)
    session.execute(
        update(PayoutTransaction)
        .where(PayoutTransaction.message_id == sent.message_id, changed[0] | changed[1])
        .values(status=sent.status, tx_hash=sent.tx_hash),
        execution_options={"synchronize_session": False},
    )


def _give_back(context: PoolContext, request: Request, why: Reason | None, *, cancelled: bool) -> Advance:
    _post(context, request, effects.payout_return(request.id), "withdrawal_cancel")
    status = RequestStatus.CANCELLED if cancelled else RequestStatus.FAILED
    return Advance(status, reason=why, run_in_sec=None)


def _post(context: PoolContext, request: Request, name: str, kind: str, reference: str | None = None) -> None:
    context.ledger.post_movement(name, kind, request.pool_id, request.user_id, _wei(request), reference)


def _paid(pool_id: str, request_id: str, amount_wei: int, tx_hash: str | None) -> NewMovement:
    return movement(effects.payout_paid(request_id), "payout_paid", pool_id, None, amount_wei, reference=tx_hash)


def _may_have_effect(context: PoolContext, request: Request) -> Reason | None:
    """Why a payout that ops have released cannot be given back after all: looked at again, as time has passed."""
    if request.parked_status == RequestStatus.RESERVING:
        return reason("payout_has_effect", "Whether its ETH was set aside is not known; retry it, which finds out.")
    stored = transfer_of(context, request.id)
    if stored is None:
        return None
    sent = context.relayer.transaction(stored.message_id)
    if sent is not None and (sent.status in WITHOUT_EFFECT or not is_ours(stored, sent)):
        return None
    code = None if sent is None or sent.reason is None else sent.reason.code
    if sent is not None and sent.status == TransactionStatus.CONFLICT and code != DONE_ELSEWHERE:
        return None
    word = "unknown to the relayer" if sent is None else f"{sent.status} at the relayer ({code})"
    return reason("payout_has_effect", f"{stored.message_id} is {word}; it is not given back.")


def _is_allowed(context: PoolContext, payout: Payout) -> bool:
    with transaction(context.sessions) as session:
        found = select(PayoutAddress.id).where(
            PayoutAddress.user_id == payout.user_id,
            PayoutAddress.address == payout.to_address,
            PayoutAddress.removed_at.is_(None),
            PayoutAddress.usable_at <= func.now(),
        )
        return session.scalar(found) is not None


def _held_up(context: PoolContext, request: Request) -> Reason | None:
    """Why nothing leaves the house now: the books cannot be trusted, or it is not known from where; or why nothing of this
    user does."""
    if not context.settings.custody_address:
        return reason("not_configured", "CUSTODY_ETH_ADDRESS is not set.")
    with transaction(context.sessions) as session:
        walk = session.get(Walk, request.pool_id)
        on_hold = held_users(request.pool_id, RequestKind.PAYOUT).where(UserHold.user_id == request.user_id)
        if session.scalar(on_hold.limit(1)) is not None:
            return reason(
                "user_on_hold", "Ops keep this user from payouts; it is sent once they have released the hold."
            )
    if walk is None:
        return None
    if walk.batches_paused is not None:
        return reason("batches_paused", f"Nothing is paid out meanwhile. {walk.batches_paused['detail']}")
    if walk.status == WalkStatus.HALTED:
        return reason("walk_halted", "Nothing is paid out while the walk is halted; see GET /v1/walk.")
    return None


def _request_id(sent: Transaction) -> str:
    return sent.message_id.split(":")[1]


def _wei(request: Request) -> int:
    assert request.amount_wei is not None  # a payout names its amount
    return request.amount_wei
