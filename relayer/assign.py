"""From queued to signed: policy, simulation and funds first, then nonces and signatures, stored in one transaction.

Signing itself happens before that transaction, for the nonces that are next, as a signer may be far away; what was
signed for a nonce that turns out taken is thrown away and never leaves the process. Nothing has been sent when the
transaction commits: a crash before it leaves queued messages, and a crash after it leaves bytes that the pump sends.
No reply, error or time-out ever leads to another nonce.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from relayer.chain import Look, OpenMessage
from relayer.context import RelayerContext
from relayer.daily import DailySums
from relayer.doubts import doubted, nonce_of
from relayer.events import Event, record_all
from relayer.fees import Fees, within
from relayer.foreign import end_done
from relayer.models import Message, Signer
from relayer.policy import Refusal
from relayer.preflight import Queued, end, expire_queued, lock_queued, note, preflight, reject, set_reason
from relayer.signing import SignatureMismatch, Signed, SignerUnavailable, Unsigned

log = structlog.get_logger(__name__)

CANDIDATES_PER_SIGNER = 200


@dataclass
class _Purse:
    """What a signer can still promise in this tick: its balance less all that is signed and not mined yet."""

    available_wei: int
    room: int
    # Sequence number of the first message still unmined: what came after it may simulate otherwise once it is mined.
    oldest_in_flight: int | None


@dataclass(frozen=True)
class _Planned:
    queued: Queued
    unsigned: Unsigned
    signed: Signed


def assign(context: RelayerContext, look: Look, messages: Sequence[OpenMessage]) -> tuple[int, list[str]]:
    """Sign what may be signed; returns how many were signed, and the messages that ended (rejected, expired)."""
    ended = [*end_done(context), *expire_queued(context)]
    candidates, signers, in_doubt = _candidates(context)
    signed = 0
    for address, rows in candidates.items():
        if address in in_doubt:
            for row in rows:
                note(
                    context,
                    row,
                    "signer_doubted",
                    "A node shows a transaction of this key that is not ours; it is looked at again.",
                )
            continue
        state, nonce = signers.get(address, ("new", 0))
        # A key that was taken out of the settings may still be looked at, for what it has under way. Not a quarantined
        # one: a transaction of it that is not recorded yet may have executed them, and this end says that nothing was.
        if address not in context.settings.keyring and state != "quarantined":
            for row in rows:
                ended += reject(context, row, Refusal("unknown_signer", f"No key of {address} is held here."))
            continue
        if state != "active":
            for row in rows:
                note(context, row, "signer_not_active", "Nothing is signed with this key now; see /v1/signers.")
            continue
        purse = _purse(context, look, messages, address)
        ready, refused = preflight(context, look, rows, purse.room, purse.oldest_in_flight)
        ended += refused
        stored, refused = _sign_and_store(context, look, _funded(context, look, ready, purse), nonce)
        signed += stored
        ended += refused
    return signed, ended


def _candidates(context: RelayerContext) -> tuple[dict[str, list[Queued]], dict[str, tuple[str, int]], set[str]]:
    """The oldest queued messages of each sender, so that one starved key holds up no other; each key's state and next
    nonce; and the keys whose nonce is in doubt."""
    place = func.row_number().over(partition_by=Message.from_address, order_by=Message.seq).label("place")
    chain_id = context.settings.chain_id
    oldest = (
        select(Message.message_id, place).where(Message.status == "queued", Message.chain_id == chain_id).subquery()
    )
    with transaction(context.sessions) as session:
        rows = session.execute(
            select(*Queued.columns())
            .join(oldest, oldest.c.message_id == Message.message_id)
            .where(oldest.c.place <= CANDIDATES_PER_SIGNER)
            .order_by(Message.seq)
        )
        candidates: dict[str, list[Queued]] = {}
        for row in rows:
            candidates.setdefault(row.from_address, []).append(Queued.of(row))
        signers = session.execute(
            select(Signer.address, Signer.state, Signer.next_nonce).where(Signer.chain_id == chain_id)
        )
        states = {row.address: (row.state, row.next_nonce) for row in signers}
        subjects = {nonce_of(chain_id, address): address for address in {*candidates, *states}}
        return candidates, states, {subjects[subject] for subject in doubted(session, list(subjects))}


def _purse(context: RelayerContext, look: Look, messages: Sequence[OpenMessage], address: str) -> _Purse:
    own = [row for row in messages if row.address == address]
    unmined = [row for row in own if not look.is_mined(row)]
    promised = sum(row.value_wei + row.gas_limit * row.max_fee_wei for row in unmined)
    return _Purse(
        available_wei=look.signers[address].balance_wei - promised,
        room=context.settings.max_in_flight - len(own),
        oldest_in_flight=min((row.seq for row in unmined), default=None),
    )


def _funded(
    context: RelayerContext, look: Look, rows: Sequence[Queued], purse: _Purse
) -> list[tuple[Queued, Fees]]:  # fmt: skip
    """Those whose value and gas the signer can pay beside all that it has promised, and at what fees."""
    found = []
    for row in rows:
        if look.market is None:
            note(context, row, "no_fees", "The node tells no base fee.")
            continue
        fees = within(look.market.fees_by(row.deadline), row.gas_limit, context.settings.max_gas_per_tx_wei)
        cost = row.value_wei + row.gas_limit * fees.max_fee_wei
        if fees.max_fee_wei < look.market.base_fee_wei:
            note(context, row, "fee_over_cap", "Gas costs more than MAX_GAS_PER_TX_WEI allows for this gas limit.")
        elif cost > purse.available_wei:
            missing = cost - purse.available_wei
            note(context, row, "insufficient_funds", f"{row.sender} lacks {missing} wei for value and gas.")
        else:
            purse.available_wei -= cost
            found.append((row, fees))
    return found


def _sign_and_store(
    context: RelayerContext, look: Look, rows: Sequence[tuple[Queued, Fees]], first_nonce: int
) -> tuple[int, list[str]]:  # fmt: skip
    planned: list[_Planned] = []
    for row, fees in rows:
        unsigned = Unsigned(
            chain_id=context.settings.chain_id,
            sender=row.sender,
            nonce=first_nonce + len(planned),
            to=row.to,
            value_wei=row.value_wei,
            data=row.data,
            gas_limit=row.gas_limit,
            max_fee_wei=fees.max_fee_wei,
            tip_wei=fees.tip_wei,
        )
        try:
            planned.append(_Planned(row, unsigned, context.settings.keyring.sign(unsigned)))
        except (SignatureMismatch, SignerUnavailable) as error:
            log.error("not_signed", message_id=row.message_id, address=row.sender, kind=type(error).__name__)
            note(context, row, "signer_failed", "The signer did not sign what was asked; it is asked again.")
            break  # the same signer has the rest too
    if not planned:
        return 0, []
    found = _store(context, look, planned)
    crashpoint("relayer.assigned")
    return found


def _store(context: RelayerContext, look: Look, planned: Sequence[_Planned]) -> tuple[int, list[str]]:
    """The one transaction in which messages get their nonces and signatures. See `relayer.models` for the lock order.

    Nonces have no gap: of a plan whose n-th message is gone by now, only what stands before it is stored.
    """
    settings = context.settings
    sender, first = planned[0].unsigned.sender, planned[0].unsigned.nonce
    ended: list[str] = []
    with transaction(context.sessions) as session:
        queued = lock_queued(session, [plan.queued.message_id for plan in planned])
        sums = DailySums(session, context)
        signer = session.scalars(
            select(Signer)
            .where(Signer.chain_id == settings.chain_id, Signer.address == sender, Signer.state == "active")
            .with_for_update()
        ).one_or_none()
        if signer is None or signer.next_nonce != first:
            return 0, ended
        borne: list[_Planned] = []
        for plan in planned:
            message_id = plan.queued.message_id
            if message_id not in queued:
                break
            if not sums.bear_value(plan.queued.proposal):
                cap = settings.max_value_per_day_wei
                end(
                    session, message_id, "rejected", Refusal("daily_value_over_cap", f"The day's sum passes {cap} wei.")
                )
                ended.append(message_id)
                break
            if not sums.bear_gas(plan.unsigned.gas_limit * plan.unsigned.max_fee_wei):
                detail = "The day's gas would pass MAX_GAS_PER_DAY_WEI."
                set_reason(session, message_id, {"code": "daily_gas_over_cap", "detail": detail})
                break
            borne.append(plan)
        _give_slots(session, look, borne)
        signer.next_nonce = first + len(borne)
        signer.updated_at = func.clock_timestamp()
        session.flush()
        crashpoint("relayer.assigning")
    return len(borne), ended


# The slots, the signed bytes in them, and the messages that own them: one statement, however many they are. None of
# these messages existed for the chain when it was looked at, so they are in no block up to the horizon of that look.
_GIVE_SLOTS = text(
    """
    WITH new AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
            message_id text, nonce bigint, gas_limit bigint, tx_hash text, raw text, max_fee wei, tip wei)
    ), given AS (
        INSERT INTO slots (chain_id, address, nonce, message_id)
        SELECT :chain_id, :address, nonce, message_id FROM new
    ), stored AS (
        INSERT INTO attempts (tx_hash, chain_id, address, nonce, number, kind, raw, max_fee_per_gas_wei,
            max_priority_fee_per_gas_wei, gas_limit, head)
        SELECT tx_hash, :chain_id, :address, nonce, 1, 'payload', decode(raw, 'hex'), max_fee, tip, gas_limit, :head
        FROM new
    )
    UPDATE messages SET status = 'signed', reason = NULL, nonce = new.nonce, gas_limit = new.gas_limit,
        tx_hash = new.tx_hash, observed_block = :horizon, observed_head = :head, signed_at = clock_timestamp(),
        updated_at = clock_timestamp()
    FROM new WHERE messages.message_id = new.message_id
    """
)


def _give_slots(session: Session, look: Look, borne: Sequence[_Planned]) -> None:
    if not borne:
        return
    rows = [
        {
            "message_id": plan.queued.message_id,
            "nonce": plan.unsigned.nonce,
            "gas_limit": plan.unsigned.gas_limit,
            "tx_hash": plan.signed.tx_hash,
            "raw": plan.signed.raw.hex(),
            "max_fee": plan.unsigned.max_fee_wei,
            "tip": plan.unsigned.tip_wei,
        }
        for plan in borne
    ]
    first = borne[0].unsigned
    values = {"chain_id": first.chain_id, "address": first.sender, "head": look.head, "horizon": look.horizon}
    session.execute(_GIVE_SLOTS, {**values, "rows": json.dumps(rows)})
    events = [
        Event(
            plan.queued.message_id,
            "signed",
            {"nonce": plan.unsigned.nonce, "tx_hash": plan.signed.tx_hash, **plan.unsigned.price()},
        )
        for plan in borne
    ]
    record_all(session, events)
