"""Bodies, queries and answers of the rewards API."""

import marshmallow as ma

from apps.common.wei import SignedWeiField, WeiField
from apps.common.wire import (
    BodySchema,
    NumberPageSchema,
    QuerySchema,
    UserPageSchema,
    message_id_field,
    pool_id_field,
    user_id_field,
)
from apps.rewards.service import MAX_BATCHED_CLAIMS, MAX_DELTAS

KINDS = ("accrual", "stake_delta", "claim", "settle", "release")


class AccrualBody(BodySchema):
    message_id = message_id_field()
    pool_id = pool_id_field(required=True)
    new_rewards_wei = SignedWeiField(required=True, metadata={"description": "Signed; a loss is negative."})
    source = ma.fields.String(required=True, validate=ma.validate.Regexp(r"\A[\x21-\x7e]{1,100}\Z"))


class ReleaseBody(BodySchema):
    message_id = message_id_field()
    pool_id = pool_id_field(required=True)
    amount_wei = SignedWeiField(
        required=True,
        validate=ma.validate.NoneOf([0], error="Must not be 0."),
        metadata={"description": "Of the sign of what is parked."},
    )


class ClaimBody(BodySchema):
    message_id = message_id_field()
    pool_id = pool_id_field(required=True)
    user_id = user_id_field(required=True)


class BatchedClaim(BodySchema):
    message_id = message_id_field()
    user_id = user_id_field(required=True)


class ClaimsBody(BodySchema):
    pool_id = pool_id_field(required=True)
    claims = ma.fields.List(
        ma.fields.Nested(BatchedClaim), required=True, validate=ma.validate.Length(1, MAX_BATCHED_CLAIMS)
    )


class StakeDelta(BodySchema):
    message_id = message_id_field()
    user_id = user_id_field(required=True)
    staked_delta_wei = SignedWeiField(required=True)
    exiting_delta_wei = SignedWeiField(required=True)


class StakeDeltasBody(BodySchema):
    pool_id = pool_id_field(required=True)
    deltas = ma.fields.List(ma.fields.Nested(StakeDelta), required=True, validate=ma.validate.Length(1, MAX_DELTAS))


class AuditBody(BodySchema):
    pool_id = pool_id_field(load_default=None, metadata={"description": "Every pool when it is left out."})


class PositionQuery(QuerySchema):
    pool_id = pool_id_field(load_default=None)


class PositionsQuery(UserPageSchema):
    pool_id = pool_id_field(load_default=None)


class EventsQuery(NumberPageSchema):
    pool_id = pool_id_field(load_default=None)
    kind = ma.fields.String(load_default=None, validate=ma.validate.OneOf(KINDS))
    user_id = user_id_field(load_default=None)


class Accrual(ma.Schema):
    """``new_rewards_wei = fee_wei + distributed_wei + parked_wei``; `weight_wei` is what it was spread over."""

    id = ma.fields.Integer()
    message_id = ma.fields.String()
    pool_id = ma.fields.String()
    source = ma.fields.String()
    new_rewards_wei = SignedWeiField()
    fee_wei = WeiField()
    distributed_wei = SignedWeiField()
    parked_wei = SignedWeiField()
    acc_reward_per_share = ma.fields.String()
    weight_wei = WeiField()
    created_at = ma.fields.String()


class Claim(ma.Schema):
    message_id = ma.fields.String()
    pool_id = ma.fields.String()
    user_id = ma.fields.String()
    claimed_wei = SignedWeiField()
    created_at = ma.fields.String()


class ClaimsAnswer(ma.Schema):
    claimed = ma.fields.Integer()
    replayed = ma.fields.Integer()


class StakeDeltasAnswer(ma.Schema):
    applied = ma.fields.Integer()
    replayed = ma.fields.Integer()


class Pool(ma.Schema):
    pool_id = ma.fields.String()
    weight_wei = WeiField()
    acc_reward_per_share = ma.fields.String(metadata={"description": "Scaled by 10^36."})
    remainder = ma.fields.String(metadata={"description": "Scaled by 10^36."})
    accrued_wei = SignedWeiField(metadata={"description": "Net of fees, parked rewards included."})
    claimed_wei = SignedWeiField()
    parked_wei = SignedWeiField()
    deficit_wei = WeiField()


class Position(ma.Schema):
    """``pending_wei = ((staked_wei + exiting_wei) * acc_reward_per_share - reward_debt) // 10^36``, floored."""

    pool_id = ma.fields.String()
    user_id = ma.fields.String()
    staked_wei = WeiField()
    exiting_wei = WeiField()
    pending_wei = SignedWeiField()
    claimed_wei = SignedWeiField()
    reward_debt = ma.fields.String(metadata={"description": "Scaled by 10^36."})
    updated_at = ma.fields.String(allow_none=True)


class Positions(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Position))
    next = ma.fields.String(allow_none=True)


class Event(ma.Schema):
    id = ma.fields.Integer()
    pool_id = ma.fields.String()
    kind = ma.fields.String(validate=ma.validate.OneOf(KINDS))
    message_id = ma.fields.String()
    user_id = ma.fields.String(allow_none=True)
    staked_delta_wei = SignedWeiField()
    exiting_delta_wei = SignedWeiField()
    claimed_wei = SignedWeiField()
    new_rewards_wei = SignedWeiField(allow_none=True)
    fee_wei = WeiField(allow_none=True)
    distributed_wei = SignedWeiField(allow_none=True)
    parked_wei = SignedWeiField(allow_none=True)
    weight_wei = WeiField(allow_none=True)
    source = ma.fields.String(allow_none=True)
    acc_reward_per_share = ma.fields.String()
    created_at = ma.fields.String()


class Events(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Event))
    next = ma.fields.Integer(metadata={"description": "The last number seen; pass it as `after`."})


class Difference(ma.Schema):
    subject = ma.fields.String()
    field = ma.fields.String()
    expected = ma.fields.String()
    found = ma.fields.String()


class Audit(ma.Schema):
    id = ma.fields.String()
    ok = ma.fields.Boolean()
    differences = ma.fields.List(ma.fields.Nested(Difference))
    created_at = ma.fields.String()


class Audits(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Audit))
    next = ma.fields.String(allow_none=True)
