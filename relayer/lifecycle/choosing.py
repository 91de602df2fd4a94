"""Which of the messages that may be signed a signer can bear now: funds and caps first, then the room in flight.

Whatever waits takes nobody's place: neither in the room nor, where it asks for value, the gas money of what does not.
Messages that fit are signed in the order of acceptance. One that the funds do not suffice for is passed by smaller ones,
for nobody can say whether its funds ever come; one that the daily cap does not bear is passed for a day and then holds
what becomes free, for its day comes for certain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.common.database import transaction
from relayer.chain.snapshot import Look, OpenMessage
from relayer.context import RelayerContext
from relayer.lifecycle.fees import Fees, within
from relayer.signing.preflight import Queued, note, preflight
from relayer.signing.spending_caps import DayLeft, left_of_the_day

DAY_GAS = "The last 24 hours' gas would pass MAX_GAS_PER_DAY_WEI; it is signed once enough of them are over."


@dataclass
class Purse:
    """What a signer can still promise in this tick: its balance less all that is signed and not mined yet."""

    available_wei: int
    room: int
    # Sequence number of the first message still unmined: what came after it may simulate otherwise once it is mined.
    oldest_in_flight: int | None
    for_gas_wei: int = 0  # of what is available, what messages without value need for gas


def purse_of(context: RelayerContext, look: Look, messages: Sequence[OpenMessage], address: str) -> Purse:
    own = [row for row in messages if row.address == address]
    unmined = [row for row in own if not look.is_mined(row)]
    promised = sum(row.value_wei + row.gas_limit * row.max_fee_wei for row in unmined)
    return Purse(
        available_wei=look.signers[address].balance_wei - promised,
        room=context.settings.max_in_flight - len(own),
        oldest_in_flight=min((row.seq for row in unmined), default=None),
    )


def choose(
    context: RelayerContext, look: Look, rows: Sequence[Queued], purse: Purse
) -> tuple[list[tuple[Queued, Fees]], list[str]]:  # fmt: skip
    """The oldest that can go now, as many as there is room for, at what fees; and the ids of those that were rejected.

    Funds and caps are looked at before the room is given away, and what fails its simulation gives its place to the
    next: whatever waits takes nobody's place.
    """
    chosen: list[tuple[Queued, Fees]] = []
    rejected: list[str] = []
    with transaction(context.sessions) as session:
        day = left_of_the_day(session, context) if rows and purse.room > 0 else DayLeft(0, 0)
    # What has no value waits for gas money alone, and may be what brings the rest: no payout takes that from it.
    frugal = [row for row in rows if row.value_wei == 0][: max(0, purse.room)]
    gas = {row.message_id: row.gas_limit * fees.max_fee_wei for row in frugal if (fees := _fees(context, look, row))}
    purse.for_gas_wei = sum(gas.values())
    waiting = list(rows)
    while waiting and len(chosen) < purse.room:
        round_: list[Queued] = []
        while waiting and len(round_) < purse.room - len(chosen):
            row = waiting.pop(0)
            if _payable(context, look, row, purse, day) is not None:
                round_.append(row)
        ready, refused = preflight(context, look, round_, purse.oldest_in_flight)
        rejected += refused
        for row in ready:
            fees = _payable(context, look, row, purse, day)
            if fees is None:
                continue
            cost = row.gas_limit * fees.max_fee_wei
            purse.available_wei -= row.value_wei + cost
            purse.for_gas_wei -= gas.pop(row.message_id, 0)
            day.take(context, row.proposal, cost)
            chosen.append((row, fees))
    return chosen, rejected


def _payable(context: RelayerContext, look: Look, row: Queued, purse: Purse, day: DayLeft) -> Fees | None:
    """The fees of a message that signer and caps can bear now; None, and the reason on the message, where not."""
    if look.market is None:
        note(context, row, "no_fees", "The node tells no base fee.")
        return None
    fees = _fees(context, look, row)
    if fees is None:
        note(context, row, "fee_over_cap", "Gas costs more than MAX_GAS_PER_TX_WEI allows for this gas limit.")
        return None
    gas = row.gas_limit * fees.max_fee_wei
    lacking = row.value_wei + gas - (purse.available_wei - (purse.for_gas_wei if row.value_wei else 0))
    if lacking > 0:
        note_lack(context, row, lacking)
    elif not day.bears_value(context, row.proposal):
        _note_day(context, row)
        if row.waited_a_day:
            day.value_wei = 0  # else smaller ones could take each hour's room from it for ever
    elif gas > day.gas_wei:
        note(context, row, "daily_gas_over_cap", DAY_GAS)
    else:
        return fees
    return None


def _fees(context: RelayerContext, look: Look, row: Queued) -> Fees | None:
    """What a message would be signed at; None where the market asks more than the cap of a transaction."""
    if look.market is None:
        return None
    fees = within(look.market.fees_by(row.deadline), row.gas_limit, context.settings.max_gas_per_tx_wei)
    return None if fees.max_fee_wei < look.market.base_fee_wei else fees


def note_lack(context: RelayerContext, row: Queued, missing: int) -> None:
    note(context, row, "insufficient_funds", f"{row.sender} lacks {missing} wei for value and gas.")


def _note_day(context: RelayerContext, row: Queued) -> None:
    note(context, row, "daily_value_over_cap", day_value(context))


def day_value(context: RelayerContext) -> str:
    """Why a message waits for the hours to pass."""
    cap = context.settings.max_value_per_day_wei
    return f"The last 24 hours' sum would pass MAX_VALUE_PER_DAY_WEI, {cap}; it is signed once enough of them are over."
