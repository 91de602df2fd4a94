"""From queued to signed: policy, simulation and funds first, then nonces and signatures, stored in one transaction.

Signing itself happens before that transaction, for the nonces that are next, as a signer may answer slowly. A signature
for a nonce that was given away meanwhile is thrown away and never leaves the process. Nothing has been sent when the
transaction commits: a crash before it leaves queued messages, and a crash after it leaves bytes that the pump sends.
No reply, error or time-out ever leads to another nonce.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from apps.common.crashpoint import crashpoint
from apps.common.database import transaction
from relayer.chain.doubts import doubted, nonce_of
from relayer.chain.snapshot import ChainSnapshot
from relayer.context import RelayerContext
from relayer.lifecycle.candidates import candidates, oldest, senders, unpayable
from relayer.lifecycle.choosing import GAS_CAP_REACHED, cap_reached, choose, note_lack, spendable_of
from relayer.lifecycle.external import end_done_externally
from relayer.lifecycle.fees import Fees
from relayer.signing.policy import Refusal
from relayer.signing.preflight import expire_queued, judge_all
from relayer.signing.spending_caps import SpendingSums
from relayer.signing.transactions import SignatureMismatch, Signed, SignerUnavailable, Unsigned
from relayer.store.events import Event, record_all
from relayer.store.messages import OpenMessage, Queued, lock_queued, note, reject, set_reason
from relayer.store.models import Signer
from relayer.store.states import SignerState

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Planned:
    queued: Queued
    unsigned: Unsigned
    signed: Signed


def sign_queued(
    context: RelayerContext, snapshot: ChainSnapshot, messages: Sequence[OpenMessage]
) -> tuple[int, list[str]]:
    """Sign what may be signed; returns how many were signed, and the messages that ended (rejected, expired)."""
    ended = [*end_done_externally(context), *expire_queued(context)]
    signed = 0
    waiting = senders(context)
    in_doubt = _in_doubt(context, waiting)
    for address, (state, nonce) in waiting.items():
        if address in in_doubt:
            detail = "A node shows a transaction of this key that is not ours; it is looked at again."
            for row in oldest(context, address, "signer_doubted"):
                note(context, row, "signer_doubted", detail)
            continue
        # No key is held any more that could sign these. They are not rejected while the key is quarantined: another sender
        # may have executed them with it, which is not recorded yet, and `rejected` says that nothing was done.
        if address not in context.settings.keyring and state != SignerState.QUARANTINED:
            for row in oldest(context, address):
                ended += reject(context, row, Refusal("unknown_signer", f"No key of {address} is held here."))
            continue
        if state != SignerState.ACTIVE:
            for row in oldest(context, address, "signer_not_active"):
                note(context, row, "signer_not_active", "Nothing is signed with this key now; see /v1/signers.")
            continue
        spendable = spendable_of(context, snapshot, messages, address)
        allowed, refused = judge_all(context, snapshot, unpayable(context, address, spendable.available_wei))
        ended += refused
        for row in allowed:
            note_lack(context, row, row.value_wei - spendable.available_wei)
        allowed, refused = judge_all(context, snapshot, candidates(context, address, spendable.available_wei))
        ended += refused
        chosen, refused = choose(context, snapshot, allowed, spendable)
        ended += refused
        signed += _sign_and_store(context, snapshot, chosen, nonce)
    return signed, ended


def _in_doubt(context: RelayerContext, addresses: Iterable[str]) -> set[str]:
    """The keys whose nonce is in doubt."""
    subjects = {nonce_of(context.settings.chain_id, address): address for address in addresses}
    with transaction(context.sessions) as session:
        return {subjects[subject] for subject in doubted(session, list(subjects))}


def _sign_and_store(
    context: RelayerContext, snapshot: ChainSnapshot, rows: Sequence[tuple[Queued, Fees]], first_nonce: int
) -> int:
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
            break  # the rest has the same signer
    if not planned:
        return 0
    found = _store(context, snapshot, planned)
    crashpoint("relayer.assigned")
    return found


def _store(context: RelayerContext, snapshot: ChainSnapshot, planned: Sequence[_Planned]) -> int:
    """The one transaction in which messages get their nonces and signatures. See `relayer.store.models` for the lock order.

    Nonces have no gap: where the n-th message of the plan has changed meanwhile, only those before it are stored.
    """
    settings = context.settings
    sender, first = planned[0].unsigned.sender, planned[0].unsigned.nonce
    with transaction(context.sessions) as session:
        queued = lock_queued(session, [plan.queued.message_id for plan in planned])
        sums = SpendingSums(session, context)
        signer = session.scalars(
            select(Signer)
            .where(Signer.chain_id == settings.chain_id, Signer.address == sender, Signer.state == SignerState.ACTIVE)
            .with_for_update()
        ).one_or_none()
        if signer is None or signer.next_nonce != first:
            return 0
        stored: list[_Planned] = []
        for plan in planned:
            message_id = plan.queued.message_id
            if message_id not in queued:
                break
            # The caps allowed it when the plan was made: another tick has signed meanwhile.
            cap = sums.add_value(plan.queued.proposal)
            if cap is not None:
                set_reason(session, message_id, {"code": "daily_value_over_cap", "detail": cap_reached(context, cap)})
                break
            if not sums.add_gas(plan.unsigned.gas_limit * plan.unsigned.max_fee_wei):
                set_reason(session, message_id, {"code": "daily_gas_over_cap", "detail": GAS_CAP_REACHED})
                break
            stored.append(plan)
        _give_nonces(session, snapshot, stored)
        signer.next_nonce = first + len(stored)
        signer.updated_at = func.clock_timestamp()
        session.flush()
        crashpoint("relayer.assigning")
    return len(stored)


# The nonces, the signed bytes, and the messages that own them: one statement, however many they are. None of these messages
# was signed when the chain was read, so they are in no block up to the horizon of that snapshot.
_GIVE_NONCES = text(
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


def _give_nonces(session: Session, snapshot: ChainSnapshot, stored: Sequence[_Planned]) -> None:
    if not stored:
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
        for plan in stored
    ]
    first = stored[0].unsigned
    values = {"chain_id": first.chain_id, "address": first.sender, "head": snapshot.head, "horizon": snapshot.horizon}
    session.execute(_GIVE_NONCES, {**values, "rows": json.dumps(rows)})
    events = [
        Event(
            plan.queued.message_id,
            "signed",
            {"nonce": plan.unsigned.nonce, "tx_hash": plan.signed.tx_hash, **plan.unsigned.price()},
        )
        for plan in stored
    ]
    record_all(session, events)
