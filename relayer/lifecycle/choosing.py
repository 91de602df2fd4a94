"""Which of the messages that may be signed a signer can pay for now: funds and caps first, then the room in flight.

A message that waits takes no other message's place: neither in the room nor, where it asks for value, the gas money of one
that asks for none. Messages that fit are signed in the order of acceptance. One that the funds do not suffice for is passed
by smaller ones, as its funds may never come. One that the daily cap does not allow is passed for a day; then it holds what
becomes free, as within another day there certainly is enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.common.database import transaction
from relayer.chain.snapshot import ChainSnapshot
from relayer.context import RelayerContext
from relayer.lifecycle.fees import Fees, within
from relayer.signing.preflight import preflight
from relayer.signing.spending_caps import CapsLeft, caps_left
from relayer.store.messages import OpenMessage, Queued, note

GAS_CAP_REACHED = "The last 24 hours' gas would pass MAX_GAS_PER_DAY_WEI; it is signed once enough of them are over."


@dataclass
class Spendable:
    """What a signer can still promise in this tick, in wei: its balance less all that is signed and not mined yet. `room`:
    how many more messages it may have in flight."""

    available_wei: int
    room: int
    # `seq` of the first message still unmined: later ones may pass their simulation once it is mined.
    oldest_in_flight: int | None
    for_gas_wei: int = 0  # of what is available, what messages without value need for gas


def spendable_of(
    context: RelayerContext, snapshot: ChainSnapshot, messages: Sequence[OpenMessage], address: str
) -> Spendable:
    own = [row for row in messages if row.sender == address]
    unmined = [row for row in own if not snapshot.is_mined(row)]
    promised = sum(row.value_wei + row.gas_limit * row.max_fee_wei for row in unmined)
    return Spendable(
        available_wei=snapshot.signers[address].balance_wei - promised,
        room=context.settings.max_in_flight - len(own),
        oldest_in_flight=min((row.seq for row in unmined), default=None),
    )


def choose(
    context: RelayerContext, snapshot: ChainSnapshot, rows: Sequence[Queued], spendable: Spendable
) -> tuple[list[tuple[Queued, Fees]], list[str]]:  # fmt: skip
    """The oldest that can go now, as many as there is room for, at what fees; and the ids of those that were rejected.

    Funds and caps are checked before the room is given away, and a message that fails its simulation gives its place to the
    next one.
    """
    chosen: list[tuple[Queued, Fees]] = []
    rejected: list[str] = []
    with transaction(context.sessions) as session:
        left = caps_left(session, context) if rows and spendable.room > 0 else CapsLeft(0, 0, 0)
    # A message without value needs gas money alone, and may be the one that brings ETH: payouts leave it that money.
    frugal = [row for row in rows if row.value_wei == 0][: max(0, spendable.room)]
    gas = {
        row.message_id: row.gas_limit * fees.max_fee_wei for row in frugal if (fees := _fees(context, snapshot, row))
    }
    spendable.for_gas_wei = sum(gas.values())
    waiting = list(rows)
    while waiting and len(chosen) < spendable.room:
        round_: list[Queued] = []
        while waiting and len(round_) < spendable.room - len(chosen):
            row = waiting.pop(0)
            if _payable(context, snapshot, row, spendable, left) is not None:
                round_.append(row)
        ready, refused = preflight(context, snapshot, round_, spendable.oldest_in_flight)
        rejected += refused
        for row in ready:
            fees = _payable(context, snapshot, row, spendable, left)
            if fees is None:
                continue
            cost = row.gas_limit * fees.max_fee_wei
            spendable.available_wei -= row.value_wei + cost
            spendable.for_gas_wei -= gas.pop(row.message_id, 0)
            left.take(context, row.proposal, cost)
            chosen.append((row, fees))
    return chosen, rejected


def _payable(
    context: RelayerContext, snapshot: ChainSnapshot, row: Queued, spendable: Spendable, left: CapsLeft
) -> Fees | None:
    """The fees of a message that signer and caps can pay for now; None, and the reason noted on the message, where not."""
    if snapshot.market is None:
        note(context, row, "no_fees", "The node tells no base fee.")
        return None
    fees = _fees(context, snapshot, row)
    if fees is None:
        note(context, row, "fee_over_cap", "Gas costs more than MAX_GAS_PER_TX_WEI allows for this gas limit.")
        return None
    gas = row.gas_limit * fees.max_fee_wei
    lacking = row.value_wei + gas - (spendable.available_wei - (spendable.for_gas_wei if row.value_wei else 0))
    if lacking > 0:
        note_lack(context, row, lacking)
    elif (cap := left.cap_on(context, row.proposal)) is not None:
        note(context, row, "daily_value_over_cap", cap_reached(context, cap))
        if row.waited_a_day:
            left.hold(cap)
    elif gas > left.gas_wei:
        note(context, row, "daily_gas_over_cap", GAS_CAP_REACHED)
    else:
        return fees
    return None


def _fees(context: RelayerContext, snapshot: ChainSnapshot, row: Queued) -> Fees | None:
    """What a message would be signed at; None where the market asks more than the cap of a transaction."""
    if snapshot.market is None:
        return None
    fees = within(snapshot.market.fees_by(row.deadline), row.gas_limit, context.settings.max_gas_per_tx_wei)
    return None if fees.max_fee_wei < snapshot.market.base_fee_wei else fees


def note_lack(context: RelayerContext, row: Queued, missing: int) -> None:
    note(context, row, "insufficient_funds", f"{row.sender} lacks {missing} wei for value and gas.")


def cap_reached(context: RelayerContext, cap: str) -> str:
    """Why a message waits for the hours to pass; `cap` is the name of a setting of `relayer.signing.spending_caps`."""
    wei = getattr(context.settings, cap.lower())
    return f"The last 24 hours' sum would pass {cap}, {wei}; it is signed once enough of them are over."
