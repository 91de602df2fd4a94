"""What the rewards service takes and answers. Amounts are wei; a loss is negative."""

from dataclasses import dataclass, field

import marshmallow as ma

from apps.clients.shapes.common import FULL, NumberPageQuery, UserPageQuery, one_of
from apps.common import wire
from apps.common.shapes import Digits, SignedWei, StrictBoolean, Time, Wei, Whole, described, given, several
from apps.common.wei import SignedWeiField

MAX_DELTAS = 10_000
MAX_CLAIMS = 1_000  # an unstake batch has a hundred users at most
EVENT_KINDS = ("accrual", "stake_delta", "claim", "settle", "release")


@dataclass(frozen=True, kw_only=True)
class NewAccrual:
    """A signed reward to spread over all stake of a pool; `source` says what it is of."""

    message_id: str = given(wire.message_id_field)
    pool_id: str = given(wire.pool_id_field, required=True)
    new_rewards_wei: int = given(SignedWeiField, required=True, metadata={"description": "Signed; a loss is negative."})
    source: str = given(ma.fields.String, required=True, validate=ma.validate.Regexp(r"\A[\x21-\x7e]{1,100}\Z"))


@dataclass(frozen=True, kw_only=True)
class NewRelease:
    """Parked wei, a gain or a loss, to hand to the positions of today."""

    message_id: str = given(wire.message_id_field)
    pool_id: str = given(wire.pool_id_field, required=True)
    amount_wei: int = given(
        SignedWeiField,
        required=True,
        validate=ma.validate.NoneOf([0], error="Must not be 0."),
        metadata={"description": "Of the sign of what is parked."},
    )


@dataclass(frozen=True, kw_only=True)
class NewClaim:
    """A user's pending reward to move into their stake."""

    message_id: str = given(wire.message_id_field)
    pool_id: str = given(wire.pool_id_field, required=True)
    user_id: str = given(wire.user_id_field, required=True)


@dataclass(frozen=True, kw_only=True)
class BatchedClaim:
    """One claim of a batch; the pool is the batch's."""

    message_id: str = given(wire.message_id_field)
    user_id: str = given(wire.user_id_field, required=True)


@dataclass(frozen=True, kw_only=True)
class NewClaimBatch:
    """Claims of many users of one pool, all or nothing."""

    pool_id: str = given(wire.pool_id_field, required=True)
    claims: list[BatchedClaim] = several(BatchedClaim, MAX_CLAIMS)


@dataclass(frozen=True, kw_only=True)
class StakeDelta:
    """A signed change of one position's principal: what is staked, and what is on its way out."""

    message_id: str = given(wire.message_id_field)
    user_id: str = given(wire.user_id_field, required=True)
    staked_delta_wei: SignedWei
    exiting_delta_wei: SignedWei


@dataclass(frozen=True, kw_only=True)
class NewStakeDeltas:
    """Changes of positions of one pool, applied in this order, all or nothing."""

    pool_id: str = given(wire.pool_id_field, required=True)
    deltas: list[StakeDelta] = several(StakeDelta, MAX_DELTAS)


@dataclass(frozen=True)
class NewAudit:
    """Which pool to audit, and whether all of it or what is new."""

    pool_id: str | None = given(
        wire.pool_id_field, load_default=None, metadata={"description": "Every pool when it is left out."}
    )
    full: bool = given(StrictBoolean, load_default=True, metadata=FULL)


@dataclass(frozen=True)
class NewSettlement:
    """Which pool's loss to go on settling."""

    pool_id: str = given(wire.pool_id_field, required=True)


@dataclass(frozen=True)
class Settlement:
    """Whether a loss of the pool is still being settled."""

    pool_id: str
    settling: bool


@dataclass(frozen=True)
class Accrual:
    """``new_rewards_wei = fee_wei + distributed_wei + parked_wei``; `weight_wei` is what it was spread over."""

    id: Whole
    message_id: str
    pool_id: str
    source: str
    new_rewards_wei: SignedWei
    fee_wei: Wei
    distributed_wei: SignedWei
    parked_wei: SignedWei
    acc_reward_per_share: Digits
    weight_wei: Wei
    created_at: Time


@dataclass(frozen=True)
class Claim:
    """Whole wei, signed, that moved from pending into stake."""

    message_id: str
    pool_id: str
    user_id: str
    claimed_wei: SignedWei
    created_at: Time


@dataclass(frozen=True)
class ClaimsAnswer:
    """How many claims of a batch were done now, and how many before."""

    claimed: Whole
    replayed: Whole


@dataclass(frozen=True)
class StakeDeltasAnswer:
    """How many deltas were applied now, and how many before."""

    applied: Whole
    replayed: Whole


@dataclass(frozen=True, kw_only=True)
class RewardPool:
    """A pool's index and sums; zeros for one that was never used."""

    pool_id: str
    weight_wei: Wei
    acc_reward_per_share: Digits = described("Scaled by 10^36.")
    remainder: Digits = described("Scaled by 10^36.")
    accrued_wei: SignedWei = described("Net of fees, parked rewards included.")
    claimed_wei: SignedWei
    parked_wei: SignedWei
    deficit_wei: Wei
    settling: bool = described("Whether a loss is being settled into the positions.", default=False)


@dataclass(frozen=True)
class Fee:
    """The company's part of gains, in ten-thousandths, once they have repaid a pool's deficit."""

    reward_fee_bps: Whole


@dataclass(frozen=True, kw_only=True)
class Position:
    """``pending_wei = ((staked_wei + exiting_wei) * acc_reward_per_share - reward_debt) // 10^36``, floored."""

    pool_id: str
    user_id: str
    staked_wei: Wei
    exiting_wei: Wei
    pending_wei: SignedWei
    claimed_wei: SignedWei
    reward_debt: Digits = described("Scaled by 10^36.")
    updated_at: Time | None


@dataclass(frozen=True)
class Positions:
    """Positions in the order of users; `next` is the cursor of the next page."""

    items: list[Position]
    next: str | None


@dataclass(frozen=True)
class EarningsDay:
    """Wei earned on a day of UTC (a loss is negative), the user's part of the fees taken on it, and the principal at its
    end."""

    date: str
    earned_wei: SignedWei
    fee_wei: Wei
    weight_wei: Wei


@dataclass(frozen=True, kw_only=True)
class Earnings:
    """What a user earned over a span. Earned is what was claimed and what is pending; the days add up to
    ``closing_wei - opening_wei``. `apr` is a decimal fraction, None where nothing was staked."""

    pool_id: str
    user_id: str
    start: Time = field(metadata={"data_key": "from"})
    end: Time = field(metadata={"data_key": "to"})
    opening_wei: SignedWei
    closing_wei: SignedWei
    fee_wei: Wei
    apr: str | None
    days: list[EarningsDay]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One effect on the index. An accrual's or a release's own fields are null in other kinds."""

    id: Whole
    pool_id: str
    kind: str = described("What happened.", enum=EVENT_KINDS)
    message_id: str
    user_id: str | None
    staked_delta_wei: SignedWei
    exiting_delta_wei: SignedWei
    claimed_wei: SignedWei
    new_rewards_wei: SignedWei | None
    fee_wei: Wei | None
    distributed_wei: SignedWei | None
    parked_wei: SignedWei | None
    weight_wei: Wei | None
    source: str | None
    acc_reward_per_share: Digits
    created_at: Time


@dataclass(frozen=True, kw_only=True)
class Events:
    """The log, oldest first; `next` is there also on the last page."""

    items: list[Event]
    next: Whole = described("The last number seen; pass it as `after`.")


@dataclass(frozen=True, kw_only=True)
class PositionsQuery(UserPageQuery):
    """Whose positions to list."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)


@dataclass(frozen=True, kw_only=True)
class EventsQuery(NumberPageQuery):
    """Which events to list; all of the pool where nothing more is said."""

    pool_id: str | None = given(wire.pool_id_field, load_default=None)
    kind: str | None = given(ma.fields.String, load_default=None, validate=one_of(EVENT_KINDS))
    user_id: str | None = given(wire.user_id_field, load_default=None)
    settled: bool = given(
        ma.fields.Boolean,
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        metadata={
            "description": "Only what moved whole wei of a user: claims and settlements. `next` then passes all others too."
        },
    )
