"""Bodies, queries and answers of the pool's endpoints."""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from apps.common.wei import WeiField
from apps.common.wire import (
    BodySchema,
    IdPageSchema,
    NumberPageSchema,
    QuerySchema,
    message_id_field,
    pool_id_field,
    user_id_field,
)
from apps.pool.walk.halts import ACCOUNTS, ACTIONS

REQUEST_KINDS = ("stake", "unstake", "reward_claim")
REQUEST_STATUSES = (
    "reserving", "queued", "batched", "submitting", "confirming", "requesting", "waiting", "claiming", "settling",
    "completed", "rejected", "cancelled", "failed", "needs_attention",
)  # fmt: skip

PLACE = ma.validate.Range(0, 2**53)


class AmountOrMaxField(WeiField):
    """Wei, or the word max."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return value if value == "max" else super()._deserialize(value, attr, data, **kwargs)


class _NewRequestSchema(BodySchema):
    message_id = message_id_field()
    user_id = user_id_field(required=True)
    pool_id = pool_id_field(load_default=None, allow_none=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fields["message_id"].required = False  # the Idempotency-Key header may carry it


class StakeSchema(_NewRequestSchema):
    amount_wei = WeiField(required=True)


class UnstakeSchema(_NewRequestSchema):
    amount_wei = AmountOrMaxField(required=True, minimum=100)


class RewardClaimSchema(_NewRequestSchema):
    pass


class RequestsQuerySchema(IdPageSchema):
    user_id = user_id_field(load_default=None)
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf(REQUEST_STATUSES))
    kind = ma.fields.String(load_default=None, validate=ma.validate.OneOf(REQUEST_KINDS))
    pool_id = pool_id_field(load_default=None)


class BatchesQuerySchema(IdPageSchema):
    status = ma.fields.String(load_default=None)
    kind = ma.fields.String(load_default=None, validate=ma.validate.OneOf(("stake", "unstake", "claim")))
    pool_id = pool_id_field(load_default=None)


class PoolQuerySchema(QuerySchema):
    pool_id = pool_id_field(load_default=None)


class MetricsQuerySchema(NumberPageSchema):
    pool_id = pool_id_field(load_default=None)


class QuoteQuerySchema(QuerySchema):
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(("stake", "unstake")))
    amount_wei = WeiField(required=True)


def _text_field(longest: int, **kwargs: Any) -> ma.fields.String:
    return ma.fields.String(validate=ma.validate.Length(1, longest), **kwargs)


class _SaidSchema(BodySchema):
    """Who says it, why, and on what evidence (a link, a ticket, a hash)."""

    message_id = message_id_field()
    by = _text_field(128, required=True)
    why = _text_field(1000, required=True)
    evidence = _text_field(1000, load_default=None, allow_none=True)


class ResolveWalkSchema(_SaidSchema):
    """`code`, and where the halt is at an item its place, as `GET /v1/walk` shows them: so that it is about that halt."""

    pool_id = pool_id_field(load_default=None, allow_none=True)
    action = ma.fields.String(required=True, validate=ma.validate.OneOf(tuple(ACTIONS)))
    code = _text_field(64, load_default=None, allow_none=True)
    block_number = ma.fields.Integer(load_default=None, allow_none=True, strict=True, validate=PLACE)
    log_index = ma.fields.Integer(load_default=None, allow_none=True, strict=True, validate=PLACE)
    batch_id = _text_field(64, load_default=None, allow_none=True)
    account = ma.fields.String(load_default=None, allow_none=True, validate=ma.validate.OneOf(ACCOUNTS))
    effect = _text_field(200, load_default=None, allow_none=True)
    gas_cost_wei = WeiField(load_default=None, allow_none=True)


class ReleaseBatchSchema(_SaidSchema):
    pass


class DecideSchema(BodySchema):
    by = _text_field(128, required=True)


class ResolutionsQuerySchema(IdPageSchema):
    status = ma.fields.String(
        load_default=None, validate=ma.validate.OneOf(("proposed", "approved", "rejected", "applied"))
    )
    pool_id = pool_id_field(load_default=None)


class ReasonSchema(ma.Schema):
    code = ma.fields.String()
    detail = ma.fields.String()


class TransactionSchema(ma.Schema):
    message_id = ma.fields.String()
    purpose = ma.fields.String()
    status = ma.fields.String()
    tx_hash = ma.fields.String(allow_none=True)


class WithdrawalSchema(ma.Schema):
    withdrawal_id = ma.fields.Integer()
    amount_wei = ma.fields.String()
    paid_wei = ma.fields.String(allow_none=True)


class TimelineSchema(ma.Schema):
    status = ma.fields.String()
    at = ma.fields.String()
    reason = ma.fields.Nested(ReasonSchema, allow_none=True)


class NextSchema(ma.Schema):
    step = ma.fields.String()
    due_at = ma.fields.String(allow_none=True)


class RequestSchema(ma.Schema):
    """A request. `amount_wei` is null while an unstake of "max" or a reward claim has not been settled."""

    id = ma.fields.String()
    message_id = ma.fields.String()
    kind = ma.fields.String()
    pool_id = ma.fields.String()
    user_id = ma.fields.String()
    amount_wei = ma.fields.String(allow_none=True)
    settled_wei = ma.fields.String(allow_none=True)
    status = ma.fields.String()
    reason = ma.fields.Nested(ReasonSchema, allow_none=True)
    batch_id = ma.fields.String(allow_none=True)
    withdrawals = ma.fields.List(ma.fields.Nested(WithdrawalSchema))
    transactions = ma.fields.List(ma.fields.Nested(TransactionSchema))
    next = ma.fields.Nested(NextSchema, allow_none=True)
    timeline = ma.fields.List(ma.fields.Nested(TimelineSchema))
    created_at = ma.fields.String()
    updated_at = ma.fields.String()


class RequestPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(RequestSchema))
    next = ma.fields.String(allow_none=True)


class BatchSchema(ma.Schema):
    id = ma.fields.String()
    kind = ma.fields.String()
    status = ma.fields.String()
    reason = ma.fields.Nested(ReasonSchema, allow_none=True)
    request_count = ma.fields.Integer()
    amount_wei = ma.fields.String()
    transactions = ma.fields.List(ma.fields.Nested(TransactionSchema))
    created_at = ma.fields.String()
    updated_at = ma.fields.String()


class BatchPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(BatchSchema))
    next = ma.fields.String(allow_none=True)


class EventSchema(ma.Schema):
    sequence = ma.fields.Integer()
    type = ma.fields.String()
    pool_request_id = ma.fields.String()
    user_id = ma.fields.String()
    data = ma.fields.Nested(RequestSchema)
    created_at = ma.fields.String()


class EventPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(EventSchema))
    next = ma.fields.Integer()
