"""What the pool takes and answers about requests, batches and users. Amounts are wei.

What it says of its walk is in `apps.clients.shapes.walk`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery, NumberPageQuery, Reason, one_of, wait_field
from apps.clients.shapes.fields import text_of
from apps.clients.shapes.ledger import Balance
from apps.clients.shapes.pool_states import BatchKind, BatchStatus, RequestKind, RequestStatus
from apps.clients.shapes.relayer import TransactionStatus
from apps.clients.shapes.rewards import Position
from apps.common import wire
from apps.common.shapes import PositiveWei, SignedWei, Time, Wei, Whole, described, given
from apps.common.wei import WeiField

MIN_UNSTAKE_WEI = 100  # Lido's least withdrawal
MAX: Literal["max"] = "max"  # an unstake of everything

_Kind = Annotated[RequestKind, text_of(RequestKind)]
_Status = Annotated[RequestStatus, text_of(RequestStatus)]


class AmountOrMaxField(WeiField):
    """Wei, or the word max."""

    def _digits(self) -> str:
        return f"(?:{MAX}|{super()._digits()})"

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return MAX if value == MAX else super()._serialize(value, attr, obj, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return MAX if value == MAX else super()._deserialize(value, attr, data, **kwargs)


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """Of every request: who asks, in which pool (the service's own where it is None), and the name of the effect, which
    the Idempotency-Key header may carry instead."""

    message_id: str | None = field(
        default=None, metadata={"marshmallow_field": wire.message_id_field(required=False, allow_none=False)}
    )
    user_id: str = given(wire.user_id_field, required=True)
    pool_id: str | None = given(wire.pool_id_field, load_default=None, allow_none=True)


@dataclass(frozen=True, kw_only=True)
class NewStake(NewRequest):
    """Available wei to stake."""

    amount_wei: PositiveWei


@dataclass(frozen=True, kw_only=True)
class NewUnstake(NewRequest):
    """Staked wei to pay back, or "max" for all of it with what is pending."""

    amount_wei: int | Literal["max"] = given(AmountOrMaxField, required=True, minimum=MIN_UNSTAKE_WEI)


@dataclass(frozen=True, kw_only=True)
class NewRewardClaim(NewRequest):
    """A user's pending reward to move into their stake."""


@dataclass(frozen=True)
class Sent:
    """A transaction of a batch, as it stands at the relayer."""

    message_id: str
    purpose: str
    status: Annotated[TransactionStatus, text_of(TransactionStatus)]
    tx_hash: str | None


@dataclass(frozen=True)
class RequestWithdrawal:
    """A withdrawal NFT of an unstake: the stETH it asks for, and the ETH it paid once it has."""

    withdrawal_id: Whole
    amount_wei: Wei
    paid_wei: Wei | None = described("Null until it has paid.")


@dataclass(frozen=True)
class TimelineEntry:
    """A status that a request came to, when and why."""

    status: _Status
    at: Time
    reason: Reason | None


@dataclass(frozen=True)
class NextStep:
    """What happens next; `due_at` is None where no timer decides."""

    step: str
    due_at: Time | None


@dataclass(frozen=True)
class PayoutDetails:
    """Where a payout goes, and who has a say in it: `by` asked for it, `decided_by` approved or rejected it, both null where
    nobody is named. `needs_approval`: it waits for a second person, or did."""

    to: str
    needs_approval: bool
    by: str | None
    decided_by: str | None
    decided_at: Time | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request. `amount_wei` is null while an unstake of "max" or a reward claim has not been settled; `settled_wei` is
    what came of it at its end, and may be a loss."""

    id: str
    message_id: str
    kind: _Kind
    pool_id: str
    user_id: str
    amount_wei: Wei | None = described("Null until it is known.")
    settled_wei: SignedWei | None = described("Null until it has ended.")
    status: _Status
    reason: Reason | None
    batch_id: str | None
    withdrawals: list[RequestWithdrawal]
    transactions: list[Sent]
    next: NextStep | None
    timeline: list[TimelineEntry]
    created_at: Time
    updated_at: Time
    payout: PayoutDetails | None = None  # null for every other kind
    deposit_tx_hash: str | None = None  # null for every other kind


@dataclass(frozen=True)
class RequestPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[Request]
    next: str | None


@dataclass(frozen=True)
class Batch:
    """Requests that share one transaction, or withdrawals that are claimed together."""

    id: str
    kind: Annotated[BatchKind, text_of(BatchKind)]
    status: Annotated[BatchStatus, text_of(BatchStatus)]
    reason: Reason | None
    request_count: Whole
    amount_wei: Wei
    transactions: list[Sent]
    created_at: Time
    updated_at: Time


@dataclass(frozen=True)
class BatchPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[Batch]
    next: str | None


@dataclass(frozen=True)
class Event:
    """A change of a request's status. `type` is ``request.<status>``, `data` the request as it stood then."""

    sequence: Whole
    type: str
    pool_request_id: str
    user_id: str
    data: Request
    created_at: Time


@dataclass(frozen=True)
class EventPage:
    """In order and without gaps; `next` is the last number seen, also on the last page."""

    items: list[Event]
    next: Whole


@dataclass(frozen=True)
class Portfolio:
    """What a user has: balance at the ledger, position in the reward index, and the latest 50 requests."""

    pool_id: str
    user_id: str
    balance: Balance
    position: Position
    requests: list[Request]


@dataclass(frozen=True)
class QuoteBasis:
    """A part of the expected time: what is waited for, for how many seconds (None where it cannot be told), and what that
    rests on."""

    code: str
    seconds: Whole | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class Quote:
    """The limits of a stake or an unstake now, what it costs, and how long it is expected to take, with the reason.

    `maximum_wei` is None where nothing limits it, `current_limit_wei` what the protocol takes right now. `split_wei`: the
    withdrawals that an unstake is asked for in, or the one stake. `reward_fee_bps`: the company's part of rewards, in
    ten-thousandths. `expected_sec` is the sum of its basis, None where a part of it cannot be told. What is quoted is of
    block `block_number`; ask again after `expires_at`.
    """

    kind: _Kind
    amount_wei: Wei
    minimum_wei: Wei
    maximum_wei: Wei | None
    current_limit_wei: Wei | None
    expected_sec: Whole | None
    reason: Reason
    expected_at: Time | None
    basis: list[QuoteBasis]
    split_wei: list[Wei]
    reward_fee_bps: Whole
    block_number: Whole
    quoted_at: Time
    expires_at: Time


@dataclass(frozen=True)
class QuoteAccuracy:
    """How good estimates were, of requests of a kind that were completed in the last 30 days: seconds from what was expected to
    what came, late above 0; null where there is none."""

    kind: _Kind
    requests: Whole
    median_error_sec: int | None
    p90_error_sec: int | None
    worst_error_sec: int | None


@dataclass(frozen=True)
class QuoteAccuracies:
    """One for each kind that is quoted."""

    items: list[QuoteAccuracy]


@dataclass(frozen=True, kw_only=True)
class RequestsQuery(IdPageQuery):
    """Which requests to list; all where nothing more is said."""

    user_id: str | None = given(wire.user_id_field, load_default=None)
    status: str | None = given(ma.fields.String, load_default=None, validate=one_of(tuple(RequestStatus)))
    kind: str | None = given(ma.fields.String, load_default=None, validate=one_of(tuple(RequestKind)))
    pool_id: str | None = given(wire.pool_id_field, load_default=None)


@dataclass(frozen=True, kw_only=True)
class BatchesQuery(IdPageQuery):
    """Which batches to list; all where nothing more is said. A status that does not exist finds none."""

    status: str | None = given(ma.fields.String, load_default=None)
    kind: str | None = given(ma.fields.String, load_default=None, validate=one_of(tuple(BatchKind)))
    pool_id: str | None = given(wire.pool_id_field, load_default=None)


@dataclass(frozen=True, kw_only=True)
class QuoteQuery:
    """What a quote is wanted for."""

    kind: str = given(ma.fields.String, required=True, validate=one_of((RequestKind.STAKE, RequestKind.UNSTAKE)))
    amount_wei: PositiveWei
    pool_id: str | None = given(wire.pool_id_field, load_default=None)


@dataclass(frozen=True, kw_only=True)
class EventsQuery(NumberPageQuery):
    """`after`: the last sequence number seen. `wait`: where there is nothing behind it, wait so long for the next event."""

    wait: float = given(wait_field, load_default=0.0)
