"""What the pool answers about its walk along the chain, and what ops tell it about a halt. Amounts are wei."""

from dataclasses import dataclass
from typing import Annotated

import marshmallow as ma

from apps.clients.shapes.common import IdPageQuery, NumberPageQuery, Reason, one_of
from apps.clients.shapes.fields import text_of
from apps.clients.shapes.pool_states import ResolutionStatus, WalkStatus
from apps.common import wire
from apps.common.shapes import Digits, SignedWei, StrictInteger, Time, Wei, Whole, given
from apps.common.wei import WeiField

# Whom a loss or a find is booked to.
ACCOUNTS = ("@fees", "@losses")
# The ways out of a halt; what each does and needs is said by `apps.pool.walk.halts`.
ACTIONS = (
    "adopt_as_company",
    "adopt_as_batch",
    "book_loss",
    "book_difference",
    "repin_block",
    "book_missed",
    "rename_effect",
    "cover_loss",
)

_PLACE = ma.validate.Range(0, 2**53)
_PERSON = ma.validate.Length(1, 128)
_TEXT = ma.validate.Length(1, 1000)


@dataclass(frozen=True)
class WayOut:
    """What ops may say about a halt: what it does, and the fields that it needs."""

    action: str
    meaning: str
    needs: list[str]


@dataclass(frozen=True)
class HaltFacts:
    """Where and about what the walk stands still; null where the halt has no such fact. `effect` is the message_id that
    was refused."""

    code: str
    detail: str
    block_number: Whole | None
    log_index: Whole | None
    tx_hash: str | None
    kind: str | None
    shares: Digits | None
    amount_wei: SignedWei | None
    effect: str | None


@dataclass(frozen=True)
class Halt(HaltFacts):
    """A halt with its ways out."""

    ways_out: list[WayOut]


@dataclass(frozen=True)
class Walk:
    """Where the walk stands and why it stands still. `log_index` is None where the whole block is booked, else the last
    log of it that is. `batches_paused`: why no batch is opened."""

    pool_id: str
    status: Annotated[WalkStatus, text_of(WalkStatus)]
    reason: Reason | None
    halt: Halt | None
    block_number: Whole
    log_index: Whole | None
    block_hash: str | None
    operator_shares: Digits
    rewards_wei: SignedWei
    dust_wei: SignedWei
    batches_paused: Reason | None
    last_error: str | None


@dataclass(frozen=True, kw_only=True)
class NewRelease:
    """Who says that a parked batch did nothing, why, and on what evidence (a link, a ticket, a hash)."""

    message_id: str = given(wire.message_id_field)
    by: str = given(ma.fields.String, required=True, validate=_PERSON)
    why: str = given(ma.fields.String, required=True, validate=_TEXT)
    evidence: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=_TEXT)


@dataclass(frozen=True, kw_only=True)
class NewResolution(NewRelease):
    """What happened where the walk is halted. `code`, and where the halt is at an item its place, as `GET /v1/walk` shows
    them: so that it is about that halt."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None, allow_none=True)
    action: str = given(ma.fields.String, required=True, validate=one_of(ACTIONS))
    code: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=ma.validate.Length(1, 64))
    block_number: int | None = given(StrictInteger, load_default=None, allow_none=True, validate=_PLACE)
    log_index: int | None = given(StrictInteger, load_default=None, allow_none=True, validate=_PLACE)
    batch_id: str | None = given(
        ma.fields.String, load_default=None, allow_none=True, validate=ma.validate.Length(1, 64)
    )
    account: str | None = given(ma.fields.String, load_default=None, allow_none=True, validate=one_of(ACCOUNTS))
    effect: str | None = given(
        ma.fields.String, load_default=None, allow_none=True, validate=ma.validate.Length(1, 200)
    )
    gas_cost_wei: int | None = given(WeiField, load_default=None, allow_none=True)


@dataclass(frozen=True)
class Decision:
    """Who approves or rejects what was said."""

    by: str = given(ma.fields.String, required=True, validate=_PERSON)


@dataclass(frozen=True)
class Resolution:
    """What ops said about a halt or a parked batch, and how far it has come."""

    id: str
    message_id: str
    pool_id: str
    action: str
    halt: HaltFacts | None
    block_number: Whole | None
    log_index: Whole | None
    batch_id: str | None
    account: str | None
    effect: str | None
    gas_cost_wei: Wei | None
    by: str
    why: str
    evidence: str | None
    status: Annotated[ResolutionStatus, text_of(ResolutionStatus)]
    decided_by: str | None
    created_at: Time
    decided_at: Time | None
    applied_at: Time | None


@dataclass(frozen=True)
class ResolutionPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[Resolution]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class ResolutionsQuery(IdPageQuery):
    """Which resolutions to list; all where nothing more is said."""

    status: str | None = given(ma.fields.String, load_default=None, validate=one_of(tuple(ResolutionStatus)))
    pool_id: str | None = given(wire.pool_id_field, load_default=None)


@dataclass(frozen=True)
class ProtocolMetric:
    """The protocol at a walked block: `share_rate` is ether per share, scaled by 10^27; `delta_wei` the change of its
    pooled ether since the last snapshot, `reward_wei` what this pool gained meanwhile."""

    pool_id: str
    block_number: Whole
    block_hash: str
    total_pooled_ether_wei: Wei
    total_shares: Digits
    share_rate: Digits
    delta_wei: SignedWei | None
    reward_wei: SignedWei


@dataclass(frozen=True)
class ProtocolMetricPage:
    """Newest first; `next` is the cursor of the next page."""

    items: list[ProtocolMetric]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class MetricsQuery(NumberPageQuery):
    """Whose snapshots to list; the service's own pool where none is named."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)
