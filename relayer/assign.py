"""From queued to signed: policy, simulation and funds first, then a nonce and a signature in one transaction.

Nothing has left the process when that transaction commits, so a crash before it leaves a queued message and a crash
after it leaves bytes that the pump sends. No reply, error or time-out ever leads to another nonce.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from apps.common.wire import format_time
from relayer.chain import Look, OpenMessage, call_fields, simulate
from relayer.context import RelayerContext
from relayer.events import record
from relayer.fees import Fees
from relayer.models import Attempt, Message, Signer, Slot
from relayer.policy import Proposal, Refusal, is_internal, judge
from relayer.replies import Reply, classify
from relayer.reverts import decode_revert
from relayer.rpc import RpcError, Unanswered
from relayer.signing import Unsigned

log = structlog.get_logger(__name__)

MAX_IN_FLIGHT = 16  # per key; geth keeps 16 executable transactions of an account for certain
CANDIDATES_PER_TICK = 64


@dataclass
class _Purse:
    """What a signer can still promise in this tick: its balance less all that is signed and not mined yet."""

    available_wei: int
    in_flight: int
    # Sequence number of the first message still unmined: what came after it may simulate otherwise once it is mined.
    oldest_in_flight: int | None


def assign(context: RelayerContext, look: Look, messages: Sequence[OpenMessage]) -> tuple[int, int]:
    """Sign what may be signed; returns how many were signed and how many ended (rejected, expired)."""
    expired = _expire(context)
    with transaction(context.sessions) as session:
        candidates = session.scalars(
            select(Message)
            .where(Message.status == "queued", Message.chain_id == context.settings.chain_id)
            .order_by(Message.seq)
            .limit(CANDIDATES_PER_TICK)
        ).all()
        active = set(
            session.scalars(
                select(Signer.address).where(
                    Signer.chain_id == context.settings.chain_id, Signer.state == "active"
                )
            )
        )  # fmt: skip
    purses = {address: _purse(look, messages, address) for address in look.signers}
    room = {address: MAX_IN_FLIGHT - purse.in_flight for address, purse in purses.items()}
    signed = rejected = 0
    sendable: list[Message] = []
    for row in candidates:
        refusal = _refusal(context, row)
        if refusal is not None:
            rejected += _reject(context, row, refusal)
        elif row.from_address not in active:
            _note(context, row, "signer_not_active", "Nothing is signed with this key now; see /v1/signers.")
        elif look.fees is None:
            _note(context, row, "no_fees", "The node tells no base fee.")
        elif room[row.from_address] > 0:
            room[row.from_address] -= 1
            sendable.append(row)
    for row, result in zip(sendable, _simulate(look, sendable), strict=True):
        purse = purses[row.from_address]
        reverted = _reverted(result)
        if reverted is not None:
            if purse.oldest_in_flight is not None and purse.oldest_in_flight < row.seq:
                _note(context, row, reverted.code, f"{reverted.detail} (asked again once what is in flight is mined)")
            else:
                rejected += _reject(context, row, reverted)
        elif isinstance(result, RpcError) and classify(result.message) is not Reply.FUNDS:
            _note(context, row, "simulation_failed", "The node could not simulate it; it is asked again.")
        elif look.fees is not None:
            signed += _sign_if_funded(context, look, row, purse, look.fees)
    return signed, rejected + expired


def _sign_if_funded(context: RelayerContext, look: Look, row: Message, purse: _Purse, fees: Fees) -> int:
    cost = row.value_wei + row.gas_limit * fees.max_fee_wei
    if cost > purse.available_wei:
        missing = cost - purse.available_wei
        _note(context, row, "insufficient_funds", f"{row.from_address} lacks {missing} wei for value and gas.")
        return 0
    if not _sign(context, look, row.message_id, fees):
        return 0
    purse.available_wei -= cost
    purse.in_flight += 1
    return 1


def _sign(context: RelayerContext, look: Look, message_id: str, fees: Fees) -> bool:
    """The one transaction in which a message gets its nonce and its signature. Lock order: message, then signer."""
    settings = context.settings
    with transaction(context.sessions) as session:
        row = _lock_queued(session, message_id)
        if row is None:
            return False
        if _over_daily_cap(session, context, row):
            cap = settings.max_value_per_day_wei
            _end(session, row, "rejected", Refusal("daily_value_over_cap", f"The day's sum passes {cap} wei."))
            return False
        signer = session.scalars(
            select(Signer)
            .where(Signer.chain_id == settings.chain_id, Signer.address == row.from_address, Signer.state == "active")
            .with_for_update()
        ).one_or_none()
        if signer is None:
            return False
        nonce = signer.next_nonce
        signer.next_nonce = nonce + 1
        signer.updated_at = func.clock_timestamp()
        unsigned = Unsigned(
            chain_id=settings.chain_id,
            sender=row.from_address,
            nonce=nonce,
            to=row.to_address,
            value_wei=row.value_wei,
            data=bytes(row.data),
            gas_limit=row.gas_limit,
            max_fee_wei=fees.max_fee_wei,
            tip_wei=fees.tip_wei,
        )
        signed = settings.keyring.sign(unsigned)
        place = {"chain_id": settings.chain_id, "address": row.from_address, "nonce": nonce}
        session.add(Slot(**place, message_id=message_id, state="open"))
        session.flush()
        session.add(
            Attempt(
                **place,
                tx_hash=signed.tx_hash,
                number=1,
                kind="payload",
                raw=signed.raw,
                max_fee_per_gas_wei=fees.max_fee_wei,
                max_priority_fee_per_gas_wei=fees.tip_wei,
                gas_limit=row.gas_limit,
            )
        )
        row.status = "signed"
        row.reason = None
        row.nonce = nonce
        row.tx_hash = signed.tx_hash
        # It did not exist when the chain was looked at, so it is in no block up to the horizon of that look.
        row.observed_block = look.horizon
        row.observed_head = look.head
        row.signed_at = row.updated_at = func.clock_timestamp()
        record(session, message_id, "signed", {"nonce": nonce, "tx_hash": signed.tx_hash})
    crashpoint("relayer.assigned")
    return True


def _lock_queued(session: Session, message_id: str) -> Message | None:
    return session.scalars(
        select(Message)
        .where(
            Message.message_id == message_id,
            Message.status == "queued",
            (Message.deadline.is_(None)) | (Message.deadline > func.clock_timestamp()),
        )
        .with_for_update(skip_locked=True)
    ).one_or_none()


def _purse(look: Look, messages: Sequence[OpenMessage], address: str) -> _Purse:
    unmined = [row for row in messages if row.address == address and look.receipt_of(row) is None]
    promised = sum(row.value_wei + row.gas_limit * row.max_fee_wei for row in unmined)
    return _Purse(
        available_wei=look.signers[address].balance_wei - promised,
        in_flight=sum(row.address == address for row in messages),
        oldest_in_flight=min((row.seq for row in unmined), default=None),
    )


def _refusal(context: RelayerContext, row: Message) -> Refusal | None:
    if row.from_address not in context.settings.keyring:
        return Refusal("unknown_signer", f"No key of {row.from_address} is held here.")
    return judge(context.rules, _proposal(row))


def _proposal(row: Message) -> Proposal:
    return Proposal(row.from_address, row.to_address, bytes(row.data), row.value_wei, row.purpose)


def _over_daily_cap(session: Session, context: RelayerContext, row: Message) -> bool:
    """Whether what left the house in the last 24 h, and this, pass the cap. One reckoning at a time."""
    if is_internal(context.rules, _proposal(row)):
        return False
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('relayer_daily_value'))"))
    settings = context.settings
    house = [str(value).lower() for value in (settings.custody_address, settings.operator_address) if value]
    spent = session.scalar(
        select(func.coalesce(func.sum(Message.value_wei), 0)).where(
            Message.chain_id == settings.chain_id,
            Message.signed_at > func.now() - text("interval '24 hours'"),
            Message.status.not_in(("reverted", "conflict")),
            func.lower(Message.to_address).not_in(house),
        )
    )
    return int(spent or 0) + row.value_wei > settings.max_value_per_day_wei


def _simulate(look: Look, rows: Sequence[Message]) -> list[Any]:
    if not rows:
        return []
    calls = [
        call_fields(row.from_address, row.to_address, bytes(row.data), row.value_wei, row.gas_limit) for row in rows
    ]
    try:
        return simulate(look.endpoint, calls)
    except Unanswered as error:
        return [RpcError(0, str(error)) for _ in rows]


def _reverted(result: Any) -> Refusal | None:
    """What the simulation says against sending, where it says that it would run and fail."""
    if not isinstance(result, RpcError):
        return None
    message = result.message.lower()
    if result.data or result.code == 3 or "revert" in message:
        return Refusal("simulation_reverted", decode_revert(result.data).detail)
    if "out of gas" in message or "intrinsic gas" in message or "gas required exceeds" in message:
        return Refusal("gas_limit_too_low", "The gas limit does not suffice.")
    return None


def _expire(context: RelayerContext) -> int:
    with transaction(context.sessions) as session:
        rows = session.scalars(
            select(Message)
            .where(Message.status == "queued", Message.deadline <= func.clock_timestamp())
            .order_by(Message.seq)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            detail = f"The deadline {format_time(row.deadline)} passed before it was signed."
            _end(session, row, "expired", Refusal("deadline_passed", detail))
        return len(rows)


def _reject(context: RelayerContext, row: Message, refusal: Refusal) -> int:
    with transaction(context.sessions) as session:
        locked = _lock_queued(session, row.message_id)
        if locked is None:
            return 0
        _end(session, locked, "rejected", refusal)
    log.warning("message_rejected", message_id=row.message_id, code=refusal.code)
    return 1


def _note(context: RelayerContext, row: Message, code: str, detail: str) -> None:
    """Say on a queued message why it waits."""
    reason = {"code": code, "detail": detail}
    if row.reason == reason:
        return
    with transaction(context.sessions) as session:
        locked = _lock_queued(session, row.message_id)
        if locked is not None:
            locked.reason = reason


def _end(session: Session, row: Message, status: str, refusal: Refusal) -> None:
    row.status = status
    row.reason = {"code": refusal.code, "detail": refusal.detail}
    row.updated_at = func.clock_timestamp()
    session.flush()
    record(session, row.message_id, status, row.reason)
