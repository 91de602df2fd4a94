"""Bodies and queries of protocols' endpoints."""

import marshmallow as ma

from apps.common.wei import SignedWeiField, WeiField
from apps.common.wire import (
    MAX_BLOCK,
    BodySchema,
    IdPageSchema,
    PageQuerySchema,
    QuerySchema,
    WholeField,
    cursor_field,
    message_id_field,
)
from apps.protocols.history import CURSOR

BLOCK = ma.validate.Range(0, MAX_BLOCK)


class AmountSchema(BodySchema):
    amount_wei = WeiField(required=True)


class ItemSchema(BodySchema):
    reference = ma.fields.String(required=True, validate=ma.validate.Length(1, 200))
    amount_wei = WeiField(required=True)


class RequestWithdrawalsSchema(BodySchema):
    items = ma.fields.List(ma.fields.Nested(ItemSchema), required=True, validate=ma.validate.Length(1, 100))


class IdsSchema(BodySchema):
    ids = ma.fields.List(
        ma.fields.Integer(strict=True, validate=ma.validate.Range(1, 2**53)),
        required=True,
        validate=ma.validate.Length(1, 1000),
    )


class ClaimSchema(BodySchema):
    withdrawal_ids = ma.fields.List(
        ma.fields.Integer(strict=True, validate=ma.validate.Range(1, 2**53)),
        required=True,
        validate=ma.validate.Length(1, 1000),
    )


class StateQuerySchema(QuerySchema):
    block = WholeField(load_default=None, validate=BLOCK)


class HistoryQuerySchema(PageQuerySchema):
    after = cursor_field(CURSOR)


class RebasesQuerySchema(HistoryQuerySchema):
    after_block = WholeField(load_default=-1, validate=ma.validate.Range(-1, MAX_BLOCK))


class RescanSchema(BodySchema):
    message_id = message_id_field()
    from_block = ma.fields.Integer(required=True, strict=True, validate=BLOCK)
    to_block = ma.fields.Integer(load_default=None, allow_none=True, strict=True, validate=BLOCK)
    reason = ma.fields.String(required=True, validate=ma.validate.Length(1, 1000))
    requested_by = ma.fields.String(required=True, validate=ma.validate.Length(1, 200))


class RewardsSchema(BodySchema):
    owed_wei = SignedWeiField(required=True)
    weight_wei = SignedWeiField(required=True)  # below zero where the company's own withdrawals are greater


class ReconciliationSchema(BodySchema):
    message_id = message_id_field()
    block = ma.fields.Integer(load_default=None, allow_none=True, strict=True, validate=BLOCK)
    # Shares that came or went without a log, as ops have decided: the history does not know of them.
    accepted_shares = SignedWeiField(load_default=0)
    rewards = ma.fields.Nested(RewardsSchema, load_default=None, allow_none=True)


class ReconciliationsQuerySchema(IdPageSchema):
    verdict = ma.fields.String(load_default=None, validate=ma.validate.OneOf(("ok", "drift", "error")))
