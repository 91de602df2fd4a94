"""What the ledger takes and answers. Amounts are wei."""

from dataclasses import dataclass, field
from datetime import datetime

import marshmallow as ma

from apps.clients.shapes.common import FULL, NumberPageQuery, PoolQuery, SpanQuery, UserPageQuery, one_of
from apps.common import wire
from apps.common.shapes import PositiveWei, SignedWei, StrictBoolean, Time, Wei, Whole, given, several

MAX_BATCH = 10_000
EXPORT_TYPES = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
# What each moves from where to where is said by `apps.ledger.kinds`.
MOVEMENT_KINDS = (
    "deposit",
    "withdrawal",
    "withdrawal_cancel",
    "payout_paid",
    "gas_float",
    "gas_spent",
    "stake_reserve",
    "stake_release",
    "stake_confirm",
    "reward_accrue",
    "reward_drop",
    "fee",
    "reward_compound",
    "reward_loss",
    "unstake_start",
    "unstake_cancel",
    "unstake_cut",
    "unstake_settle",
    "unstake_shortfall",
    "rounding_loss",
    "rounding_gain",
    "donation",
    "manual_submit",
    "manual_claim",
    "company_claim",
    "eth_lost",
    "fees_lost",
    "steth_lost",
    "steth_found",
    "loss_covered",
    "reward_loss_covered",
    "reversal",
)


@dataclass(frozen=True, kw_only=True)
class NewMovement:
    """A movement to post, once per `message_id`.

    `pool_id` is the ledger's own where it is None; `user_id` is None between system accounts; `reference` of a reversal
    is the message_id of what it reverses.
    """

    message_id: str = given(wire.message_id_field)
    kind: str = given(ma.fields.String, required=True, validate=one_of(MOVEMENT_KINDS))
    pool_id: str | None = given(wire.pool_id_field, load_default=None, allow_none=True)
    user_id: str | None = given(wire.user_id_field, load_default=None, allow_none=True)
    amount_wei: PositiveWei
    reference: str | None = given(
        ma.fields.String, load_default=None, allow_none=True, validate=ma.validate.Length(1, 200)
    )


@dataclass(frozen=True)
class NewMovementBatch:
    """Movements to post in this order, all or nothing; each message_id once."""

    movements: list[NewMovement] = several(NewMovement, MAX_BATCH)


@dataclass(frozen=True)
class Movement:
    """What was posted, for ever as it is here."""

    id: Whole
    message_id: str
    kind: str
    pool_id: str
    user_id: str | None
    amount_wei: Wei
    reference: str | None
    created_at: Time


@dataclass(frozen=True)
class MovementPage:
    """Movements in the order of their ids; `next` is the cursor of the next page."""

    items: list[Movement]
    next: str | None


@dataclass(frozen=True)
class BatchAnswer:
    """How many movements a batch posted and how many had been posted before; the first and last id of the new ones."""

    posted: Whole
    replayed: Whole
    first_id: Whole | None
    last_id: Whole | None


@dataclass(frozen=True)
class Balance:
    """A user's buckets after their last movement up to `as_of`; zeros for an unknown user."""

    pool_id: str
    user_id: str
    available_wei: Wei
    reserved_wei: Wei
    staked_wei: Wei
    unstaking_wei: Wei
    last_movement_id: Whole | None
    as_of: Time


@dataclass(frozen=True)
class BalancePage:
    """Balances in the order of users; `next` is the cursor of the next page."""

    items: list[Balance]
    next: str | None


@dataclass(frozen=True)
class Buckets:
    """What stands in a user's buckets."""

    available_wei: Wei
    reserved_wei: Wei
    staked_wei: Wei
    unstaking_wei: Wei


@dataclass(frozen=True)
class StatementLine:
    """A movement of the user's: from which account to which, and the user's buckets after it."""

    id: Whole
    message_id: str
    kind: str
    amount_wei: Wei
    reference: str | None
    source: str
    target: str
    after: Buckets
    created_at: Time


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A user's buckets at both ends of a span, and what moved in between: `opening` and the amounts of all pages give
    `closing`. `next` is the cursor of the next page, to be asked for with the same `from` and `to`."""

    pool_id: str
    user_id: str
    start: Time = field(metadata={"data_key": "from"})
    end: Time = field(metadata={"data_key": "to"})
    opening: Buckets
    closing: Buckets
    lines: list[StatementLine]
    next: str | None


@dataclass(frozen=True)
class Totals:
    """Sums over a pool: user buckets, system accounts by name, and all together, which must be 0."""

    pool_id: str
    available_wei: Wei
    reserved_wei: Wei
    staked_wei: Wei
    unstaking_wei: Wei
    system: dict[str, SignedWei]
    sum_wei: SignedWei
    last_movement_id: Whole | None


@dataclass(frozen=True)
class NewAudit:
    """Which pool to audit, the ledger's own where none is named, and whether all of it or what is new."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None, allow_none=True)
    full: bool = given(StrictBoolean, load_default=True, metadata=FULL)


@dataclass(frozen=True, kw_only=True)
class MovementsQuery(NumberPageQuery):
    """Which movements to list; all of the pool where nothing more is said."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)
    user_id: str | None = given(wire.user_id_field, load_default=None)
    kind: str | None = given(ma.fields.String, load_default=None, validate=one_of(MOVEMENT_KINDS))
    created_after: datetime | None = given(wire.TimeField, load_default=None)


@dataclass(frozen=True, kw_only=True)
class ExportQuery:
    """Which movements to export, and in which of `EXPORT_TYPES`."""

    format: str = given(ma.fields.String, load_default="ndjson", validate=one_of(tuple(EXPORT_TYPES)))
    pool_id: str | None = given(wire.pool_id_field, load_default=None)
    user_id: str | None = given(wire.user_id_field, load_default=None)
    kind: str | None = given(ma.fields.String, load_default=None, validate=one_of(MOVEMENT_KINDS))


@dataclass(frozen=True, kw_only=True)
class BalanceQuery(PoolQuery):
    """Now, or as of a time."""

    at: datetime | None = given(wire.TimeField, load_default=None)


@dataclass(frozen=True, kw_only=True)
class BalancesQuery(UserPageQuery):
    """Whose balances to list: of the users whose id begins with a text, or of all."""

    prefix: str | None = given(wire.user_id_field, load_default=None)
    pool_id: str | None = given(wire.pool_id_field, load_default=None)


@dataclass(frozen=True, kw_only=True)
class StatementQuery(SpanQuery, NumberPageQuery):
    """Of which span, and which page of it."""
