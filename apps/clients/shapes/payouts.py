"""Money out and in, as the pool and protocols take and answer it: payouts and their allowed addresses, and deposits by their
transactions. Amounts are wei."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery
from apps.clients.shapes.fields import AddressField, text_of
from apps.clients.shapes.history import HistoryQuery
from apps.clients.shapes.pool import NewRequest
from apps.clients.shapes.walk import NewRelease
from apps.common import wire
from apps.common.shapes import PositiveWei, SignedWei, Time, Wei, Whole, described, given
from apps.common.states import Status
from apps.common.wei import WeiField
from apps.common.wire import TX_HASH, OpenApi, nullable, published

_PERSON = ma.validate.Length(1, 128)


class HashField(ma.fields.String):
    """A transaction's hash; lower case inside."""

    @property
    def openapi(self) -> OpenApi:
        return {"type": nullable("string", self), "pattern": published(TX_HASH)}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not isinstance(text, str) or not TX_HASH.fullmatch(text):
            raise ma.ValidationError("Not a transaction's hash: 0x and 64 hex digits.")
        return text.lower()


class AccountKind(Status):
    """What stands at an address."""

    PLAIN = "plain", "No code: whoever has its key decides."
    DELEGATED = "delegated", "A key's account that runs another contract's code (EIP-7702)."
    CONTRACT = "contract", "A contract."


@dataclass(frozen=True, kw_only=True)
class NewPayout(NewRequest):
    """Available wei to send to an address that the user has allowed. `by`: who of the company asks for it, where a person
    does; that person cannot approve it."""

    amount_wei: PositiveWei
    to: str = given(AddressField, required=True)
    by: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=_PERSON)


@dataclass(frozen=True, kw_only=True)
class NewPaid(NewRelease):
    """Who says that another transaction of the house has paid a parked payout, and which. `gas_cost_wei`: what that one cost,
    as no relayer tells it."""

    tx_hash: str = given(HashField, required=True)
    gas_cost_wei: int | None = given(WeiField, load_default=None, allow_none=True)


@dataclass(frozen=True, kw_only=True)
class NewPayoutAddress:
    """An address that a user is to be paid at, and what they call it."""

    message_id: str = given(wire.message_id_field)
    address: str = given(AddressField, required=True)
    label: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=ma.validate.Length(1, 100))


@dataclass(frozen=True)
class PayoutAddress:
    """An address of a user's list. It can be paid from `usable_at` on, until it is removed."""

    id: str
    message_id: str
    user_id: str
    address: str
    label: str | None
    usable_at: Time
    removed_at: Time | None
    created_at: Time


@dataclass(frozen=True)
class PayoutAddressPage:
    """Newest first, removed ones too; `next` is the cursor of the next page."""

    items: list[PayoutAddress]
    next: str | None


@dataclass(frozen=True)
class Account:
    """An address as the chain has it now. `delegate`: whose code a delegated account runs. `refused`: what it is that no user
    can be paid at, where it is that."""

    address: str
    kind: Annotated[AccountKind, text_of(AccountKind)]
    delegate: str | None
    refused: str | None


@dataclass(frozen=True, kw_only=True)
class NewDeposit(NewRequest):
    """The transaction that brought a user's ETH to custody."""

    tx_hash: str = given(HashField, required=True)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A transaction's own transfer of ETH. `final`: its block is at or below the money horizon; `posted_as`: the message_id of
    the movement that booked it, as far as the ledger's movements name its hash."""

    tx_hash: str
    block_number: Whole
    block_hash: str
    sender: str = field(metadata={"data_key": "from"})
    to: str | None = described("Null where a contract was created.")
    amount_wei: Wei
    success: bool
    final: bool
    posted_as: str | None


@dataclass(frozen=True, kw_only=True)
class UnidentifiedDeposit:
    """A transaction that brought ETH to custody, and whose hash no movement of the ledger names."""

    block_number: Whole
    block_hash: str
    tx_hash: str
    sender: str = field(metadata={"data_key": "from"})
    amount_wei: Wei


@dataclass(frozen=True)
class Remainder:
    """What the reconciliation at a block could not name, and what of it is not listed.

    `unidentified_wei` is the reconciliation's; `listed_wei` what the transactions up to that block brought that were not
    posted then. The rest came without a transaction of its own to custody: sent by a contract, as a validator's withdrawal or
    a block's reward, or before the first block that was read. Below zero: deposits were posted at the ledger that do not name
    their transactions, which are listed all the same.
    """

    block_number: Whole
    unidentified_wei: Wei
    listed_wei: Wei
    remainder_wei: SignedWei


@dataclass(frozen=True)
class UnidentifiedDeposits:
    """Oldest first. `scanned_block`: up to where the chain was read; `complete`: that is the money horizon, and the ledger was
    read up to its newest movement. `listed_wei`: of all of them, not of this page. `remainder` is null before the first
    reconciliation, or while the chain was not read as far."""

    items: list[UnidentifiedDeposit]
    next: str | None
    scanned_block: Whole
    horizon_block: Whole
    complete: bool
    listed_wei: Wei
    remainder: Remainder | None


@dataclass(frozen=True, kw_only=True)
class UnidentifiedQuery(HistoryQuery):
    """Deposits after ``<block>:<index of the transaction>``."""


@dataclass(frozen=True, kw_only=True)
class PayoutAddressesQuery(IdPageQuery):
    """A page of a user's payout addresses."""
