"""What the relayer takes and answers: messages to be signed, how they stand, the keys, and the caps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import marshmallow as ma

from apps.clients.shapes.common import Reason, wait_field
from apps.clients.shapes.fields import AddressField, DataField, MessageIdsField, several_of, text_of
from apps.common.shapes import StrictInteger, Time, Wei, Whole, described, given
from apps.common.states import Status
from apps.common.wei import WeiField
from apps.common.wire import (
    DEFAULT_LIMIT,
    MAX_BLOCK,
    NUMBER,
    TimeField,
    WholeField,
    cursor_field,
    limit_field,
    message_id_field,
)
from apps.ethereum.constants import MAX_GAS, TRANSFER_GAS

_PURPOSE = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z", re.ASCII)


class TransactionStatus(Status):
    """How a message stands. What may follow what is said by `relayer.store.states`."""

    QUEUED = "queued", "Accepted; it has no nonce yet."
    SIGNED = "signed", "It has its nonce, and its signed bytes are stored; no node has confirmed to hold them."
    BROADCAST = "broadcast", "A node holds its bytes."
    MINED = "mined", "Seen in a block above the money horizon; a reorg may undo it."
    CONFIRMED = "confirmed", "Executed, in a block at or below the money horizon."
    REVERTED = "reverted", "Mined at or below the money horizon, and failed: no effect, but gas was paid."
    CANCELLED = "cancelled", "Taken back by its caller before it had an effect."
    EXPIRED = "expired", "Its deadline passed before it had an effect."
    REJECTED = "rejected", "Refused by the policy, a simulation or every node; no effect."
    CONFLICT = "conflict", "Another sender with the same key used its nonce, or did the same already: ops decide."


class Intent(Status):
    """Why an empty transaction is to take a message's nonce. The transaction that is mined decides, not this."""

    NONE = "none", "None is."
    CANCEL = "cancel", "Its caller took it back."
    EXPIRE = "expire", "Its deadline passed."
    REJECT = "reject", "Every node calls it invalid."


class SignerState(Status):
    """What a key may do."""

    NEW = "new", "Nothing: its nonce on the chain is not known yet."
    ACTIVE = "active", "Sign and send."
    DRAINING = "draining", "Finish what has a nonce; nothing else gets one."
    PAUSED = "paused", "Neither sign nor send."
    QUARANTINED = "quarantined", "Sign nothing new until what another sender did with it is recorded, see release."


class AttemptKind(Status):
    """What a signed transaction of a message's nonce does."""

    PAYLOAD = "payload", "What the message asks for."
    NOOP = "noop", "Nothing: it only uses the nonce up, so that the payload cannot be executed any more."


_Status = Annotated[TransactionStatus, text_of(TransactionStatus)]


@dataclass(frozen=True)
class NewTransaction:
    """The body of ``POST /v1/transactions``: what is to be signed and sent, once per message_id.

    Without `gas_limit` the relayer chooses one; without `sender` it takes its default key; after `deadline` the message
    is not to be executed any more.
    """

    message_id: str = given(message_id_field)
    to: str = given(AddressField, required=True)
    data: str = given(DataField, required=True)
    value_wei: int = given(WeiField, minimum=0, required=True)
    gas_limit: int | None = given(
        StrictInteger, load_default=None, allow_none=True, validate=ma.validate.Range(TRANSFER_GAS, MAX_GAS)
    )
    deadline: datetime | None = given(TimeField, load_default=None, allow_none=True)
    sender: str | None = given(AddressField, data_key="from", load_default=None, allow_none=True)
    purpose: str | None = given(
        ma.fields.String, load_default=None, allow_none=True, validate=ma.validate.Regexp(_PURPOSE)
    )


@dataclass(frozen=True)
class WaitQuery:
    """`wait`: seconds to wait for the status to change."""

    wait: float = given(wait_field, load_default=0.0)


@dataclass(frozen=True)
class TransactionsQuery:
    """`from_block`, `to_block`: the block that it was mined or settled in, both inclusive. `message_ids`: none but these."""

    status: list[TransactionStatus] | None = given(several_of(TransactionStatus), load_default=None)
    from_block: int | None = given(WholeField, load_default=None, validate=ma.validate.Range(0, MAX_BLOCK))
    to_block: int | None = given(WholeField, load_default=None, validate=ma.validate.Range(0, MAX_BLOCK))
    message_ids: list[str] | None = given(MessageIdsField, load_default=None)
    limit: int = given(limit_field, load_default=DEFAULT_LIMIT)
    after: str | None = given(cursor_field, regex=NUMBER, load_default=None)


@dataclass(frozen=True)
class PartsQuery:
    """A page of what belongs to one message. `after`: the number of the last event, or the id of the last send, seen."""

    limit: int = given(limit_field, load_default=DEFAULT_LIMIT)
    after: str | None = given(cursor_field, regex=NUMBER, load_default=None)


@dataclass(frozen=True)
class Revert:
    """Why a transaction reverted. `name`: ``Error``, ``Panic``, ``OutOfGas``, ``Unknown``, or a custom error's name."""

    name: str
    detail: str


@dataclass(frozen=True)
class Attempt:
    """One signed transaction of a message's nonce."""

    tx_hash: str
    kind: Annotated[AttemptKind, text_of(AttemptKind)]
    max_fee_per_gas_wei: Wei
    max_priority_fee_per_gas_wei: Wei
    created_at: Time


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """A message and how it stands."""

    message_id: str
    purpose: str | None
    status: _Status
    reason: Reason | None
    sender: str = field(metadata={"data_key": "from"})
    to: str
    data: str
    value_wei: Wei
    gas_limit: Whole
    deadline: Time | None
    nonce: Whole | None
    tx_hash: str | None
    block_number: Whole | None
    block_hash: str | None
    confirmations: Whole
    observed_block: Whole | None = described(
        "While the transaction is not final, it was mined in no block up to this one."
    )
    gas_cost_wei: Wei | None
    revert: Revert | None
    passing: str | None = described(
        "Where it ended without effect for a reason that passes by itself, that reason's code: `stake_limit_exceeded`, "
        "`staking_paused`, `queue_paused` or `protocol_stopped`. Else null.",
        default=None,  # a relayer of the release before does not tell; its answers are read all the same
    )
    attempts: list[Attempt]
    created_at: Time
    updated_at: Time


@dataclass(frozen=True)
class TransactionPage:
    """Messages in the order of acceptance."""

    items: list[Transaction]
    next: str | None


@dataclass(frozen=True)
class Event:
    """One entry of a message's history; its digest is over the previous digest and the entry.

    `body`: what is worth keeping of an event of this type, names and plain values.
    """

    number: Whole
    type: str
    body: Annotated[Mapping[str, object], ma.fields.Dict]
    previous_digest: str
    digest: str
    at: Time


@dataclass(frozen=True)
class EventPage:
    """A message's history, oldest first."""

    items: list[Event]
    next: str | None


@dataclass(frozen=True)
class Send:
    """One handing-over of signed bytes to one node; `reply`, `text` and `answered_at` are null until it answered."""

    id: Whole
    tx_hash: str
    endpoint: Whole
    reply: str | None
    text: str | None
    at: Time
    answered_at: Time | None


@dataclass(frozen=True)
class SendPage:
    """Sends, oldest first."""

    items: list[Send]
    next: str | None


@dataclass(frozen=True)
class Reply:
    """What one endpoint last said to a message's newest bytes; `at`: when it was asked."""

    endpoint: Whole
    reply: str | None
    text: str | None
    at: Time


@dataclass(frozen=True)
class Market:
    """What gas costs now, at a message's urgency."""

    base_fee_wei: Wei
    max_fee_per_gas_wei: Wei
    max_priority_fee_per_gas_wei: Wei


@dataclass(frozen=True)
class Explanation:
    """Why a message is not mined yet, or how it ended: reasons, the weightiest first. `settled`: whether it has ended.
    `ahead_in_line`: messages of the same key that must be mined first. `market` is null where no node answers."""

    message_id: str
    status: _Status
    intent: Annotated[Intent, text_of(Intent)]
    settled: bool
    reasons: list[Reason]
    ahead_in_line: Whole
    replies: list[Reply]
    market: Market | None


@dataclass(frozen=True)
class Signer:
    """A key's address and state. `next_nonce`: the one that the next message gets; `latest_nonce`: the account's nonce
    at the latest block; `in_flight`: messages with a nonce that are not final."""

    address: str
    state: Annotated[SignerState, text_of(SignerState)]
    balance_wei: Wei
    next_nonce: Whole
    latest_nonce: Whole
    in_flight: Whole


@dataclass(frozen=True)
class Signers:
    """Every key that is held or was used."""

    items: list[Signer]


@dataclass(frozen=True)
class Limits:
    """The caps that every message is held against, in wei but the last, and what of the last 24 hours' nothing has used up.
    Payouts have caps of their own beside those of all value; a relayer of the release before does not tell them."""

    max_value_per_tx_wei: Wei
    max_value_per_day_wei: Wei
    value_left_today_wei: Wei
    max_gas_per_tx_wei: Wei
    max_gas_per_day_wei: Wei
    gas_left_today_wei: Wei
    max_gas_limit: Whole = described("Gas units that one message may name.")
    max_payout_per_tx_wei: Wei | None = None
    max_payout_per_day_wei: Wei | None = None
    payout_left_today_wei: Wei | None = None
