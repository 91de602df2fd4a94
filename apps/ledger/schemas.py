"""Bodies, queries and answers of the ledger's endpoints."""

import marshmallow as ma

from apps.common.wei import WeiField
from apps.common.wire import (
    BodySchema,
    IdPageSchema,
    NumberPageSchema,
    QuerySchema,
    TimeField,
    UserPageSchema,
    message_id_field,
    pool_id_field,
    user_id_field,
)
from apps.ledger.kinds import KINDS, REVERSAL

MAX_BATCH = 10_000
ALL_KINDS = (*KINDS, REVERSAL)
EXPORT_TYPES = {"ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


class NewMovementSchema(BodySchema):
    message_id = message_id_field()
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(ALL_KINDS))
    pool_id = pool_id_field(load_default=None, allow_none=True)
    user_id = user_id_field(load_default=None, allow_none=True)
    amount_wei = WeiField(required=True)
    reference = ma.fields.String(load_default=None, allow_none=True, validate=ma.validate.Length(1, 200))


class BatchSchema(BodySchema):
    movements = ma.fields.List(
        ma.fields.Nested(NewMovementSchema), required=True, validate=ma.validate.Length(1, MAX_BATCH)
    )


class MovementsQuerySchema(NumberPageSchema):
    pool_id = pool_id_field(load_default=None)
    user_id = user_id_field(load_default=None)
    kind = ma.fields.String(load_default=None, validate=ma.validate.OneOf(ALL_KINDS))
    created_after = TimeField(load_default=None)


class ExportQuerySchema(QuerySchema):
    format = ma.fields.String(load_default="ndjson", validate=ma.validate.OneOf(tuple(EXPORT_TYPES)))
    pool_id = pool_id_field(load_default=None)
    user_id = user_id_field(load_default=None)
    kind = ma.fields.String(load_default=None, validate=ma.validate.OneOf(ALL_KINDS))


class BalanceQuerySchema(QuerySchema):
    pool_id = pool_id_field(load_default=None)
    at = TimeField(load_default=None)


class PoolQuerySchema(QuerySchema):
    pool_id = pool_id_field(load_default=None)


class BalancesQuerySchema(UserPageSchema):
    pool_id = pool_id_field(load_default=None)


class AuditsQuerySchema(IdPageSchema):
    pass


class AuditSchema(BodySchema):
    pool_id = pool_id_field(load_default=None, allow_none=True)


class MovementSchema(ma.Schema):
    id = ma.fields.Integer()
    message_id = ma.fields.String()
    kind = ma.fields.String()
    pool_id = ma.fields.String()
    user_id = ma.fields.String(allow_none=True)
    amount_wei = ma.fields.String()
    reference = ma.fields.String(allow_none=True)
    created_at = ma.fields.String()


class MovementPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(MovementSchema))
    next = ma.fields.String(allow_none=True)


class BatchAnswerSchema(ma.Schema):
    posted = ma.fields.Integer()
    replayed = ma.fields.Integer()
    first_id = ma.fields.Integer(allow_none=True)
    last_id = ma.fields.Integer(allow_none=True)


class BalanceSchema(ma.Schema):
    pool_id = ma.fields.String()
    user_id = ma.fields.String()
    available_wei = ma.fields.String()
    reserved_wei = ma.fields.String()
    staked_wei = ma.fields.String()
    unstaking_wei = ma.fields.String()
    last_movement_id = ma.fields.Integer(allow_none=True)
    as_of = ma.fields.String()


class DifferenceSchema(ma.Schema):
    subject = ma.fields.String()
    field = ma.fields.String()
    expected = ma.fields.String()
    found = ma.fields.String()


class AuditAnswerSchema(ma.Schema):
    id = ma.fields.String()
    ok = ma.fields.Boolean()
    differences = ma.fields.List(ma.fields.Nested(DifferenceSchema))
    created_at = ma.fields.String()
