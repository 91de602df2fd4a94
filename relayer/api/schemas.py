"""Bodies, queries and answers of the relayer."""

import re
from typing import Any

import marshmallow as ma
from web3 import Web3

from apps.common.wei import WeiField
from apps.common.wire import (
    MAX_BLOCK,
    BodySchema,
    NumberPageSchema,
    QuerySchema,
    TimeField,
    WholeField,
    message_id_field,
)
from relayer.signing.gas import MAX_GAS_LIMIT
from relayer.store.models import INTENTS, SIGNER_STATES, STATUSES

MAX_DATA_BYTES = 128 * 1024  # what nodes accept in one transaction
MAX_WAIT_SEC = 30
MIN_GAS_LIMIT = 21_000
_PURPOSE = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


class AddressField(ma.fields.String):
    """A 0x address; mixed case is taken as a checksum and checked, for a mistyped address loses money."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not isinstance(text, str) or not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
            raise ma.ValidationError("Not an address: 0x and 40 hex digits.")
        address = str(Web3.to_checksum_address(text))
        if text != address and text[2:] not in {text[2:].lower(), text[2:].upper()}:
            raise ma.ValidationError("The checksum of this address is wrong.")
        return address


class DataField(ma.fields.String):
    """Calldata as 0x hex."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not isinstance(text, str) or not _HEX.fullmatch(text):
            raise ma.ValidationError("Not calldata: 0x and an even number of hex digits.")
        if len(text) > 2 + 2 * MAX_DATA_BYTES:
            raise ma.ValidationError(f"Longer than {MAX_DATA_BYTES} bytes.")
        return text.lower()


class NewTransactionSchema(BodySchema):
    message_id = message_id_field()
    to = AddressField(required=True)
    data = DataField(required=True)
    value_wei = WeiField(minimum=0, required=True)
    gas_limit = ma.fields.Integer(
        strict=True, load_default=None, allow_none=True, validate=ma.validate.Range(MIN_GAS_LIMIT, MAX_GAS_LIMIT)
    )
    deadline = TimeField(load_default=None, allow_none=True)
    sender = AddressField(data_key="from", load_default=None, allow_none=True)
    purpose = ma.fields.String(
        load_default=None, allow_none=True, validate=ma.validate.Regexp(_PURPOSE.pattern + r"\Z", flags=re.ASCII)
    )


class WaitQuerySchema(QuerySchema):
    wait = ma.fields.Float(load_default=0.0, validate=ma.validate.Range(0, MAX_WAIT_SEC))


class StatusesField(ma.fields.String):
    """One status, or several, comma-separated."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        statuses = [part.strip() for part in str(text).split(",") if part.strip()]
        if not statuses or any(status not in STATUSES for status in statuses):
            raise ma.ValidationError(f"Must be one or more of {', '.join(STATUSES)}.")
        return statuses


class ListQuerySchema(NumberPageSchema):
    """`from_block` and `to_block` (both inclusive) choose by the block that the transaction was mined or settled in."""

    status = StatusesField(load_default=None)
    from_block = WholeField(load_default=None, validate=ma.validate.Range(0, MAX_BLOCK))
    to_block = WholeField(load_default=None, validate=ma.validate.Range(0, MAX_BLOCK))


class EventQuerySchema(NumberPageSchema):
    """`after`: the number of the last event seen."""


class SendQuerySchema(NumberPageSchema):
    """`after`: the id of the last send seen."""


class ReasonSchema(ma.Schema):
    code = ma.fields.String()
    detail = ma.fields.String()


class RevertSchema(ma.Schema):
    name = ma.fields.String()
    detail = ma.fields.String()


class AttemptSchema(ma.Schema):
    tx_hash = ma.fields.String()
    kind = ma.fields.String(validate=ma.validate.OneOf(("payload", "noop")))
    max_fee_per_gas_wei = WeiField()
    max_priority_fee_per_gas_wei = WeiField()
    created_at = TimeField()


class TransactionSchema(ma.Schema):
    message_id = ma.fields.String()
    purpose = ma.fields.String(allow_none=True)
    status = ma.fields.String(validate=ma.validate.OneOf(STATUSES))
    reason = ma.fields.Nested(ReasonSchema, allow_none=True)
    sender = ma.fields.String(data_key="from")
    to = ma.fields.String()
    data = ma.fields.String()
    value_wei = WeiField()
    gas_limit = ma.fields.Integer()
    deadline = TimeField(allow_none=True)
    nonce = ma.fields.Integer(allow_none=True)
    tx_hash = ma.fields.String(allow_none=True)
    block_number = ma.fields.Integer(allow_none=True)
    block_hash = ma.fields.String(allow_none=True)
    confirmations = ma.fields.Integer()
    observed_block = ma.fields.Integer(
        allow_none=True,
        metadata={"description": "While the transaction is not final, it was mined in no block up to this one."},
    )
    gas_cost_wei = WeiField(allow_none=True)
    revert = ma.fields.Nested(RevertSchema, allow_none=True)
    attempts = ma.fields.List(ma.fields.Nested(AttemptSchema))
    created_at = TimeField()
    updated_at = TimeField()


class TransactionPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(TransactionSchema))
    next = ma.fields.String(allow_none=True)


class EventSchema(ma.Schema):
    number = ma.fields.Integer()
    type = ma.fields.String()
    body = ma.fields.Dict()
    previous_digest = ma.fields.String()
    digest = ma.fields.String()
    at = TimeField()


class EventPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(EventSchema))
    next = ma.fields.String(allow_none=True)


class SendSchema(ma.Schema):
    id = ma.fields.Integer()
    tx_hash = ma.fields.String()
    endpoint = ma.fields.Integer()
    reply = ma.fields.String(allow_none=True)
    text = ma.fields.String(allow_none=True)
    at = TimeField()
    answered_at = TimeField(allow_none=True)


class SendPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SendSchema))
    next = ma.fields.String(allow_none=True)


class ReplySchema(ma.Schema):
    endpoint = ma.fields.Integer()
    reply = ma.fields.String(allow_none=True)
    text = ma.fields.String(allow_none=True)
    at = TimeField()


class MarketSchema(ma.Schema):
    base_fee_wei = WeiField()
    max_fee_per_gas_wei = WeiField()
    max_priority_fee_per_gas_wei = WeiField()


class ExplanationSchema(ma.Schema):
    message_id = ma.fields.String()
    status = ma.fields.String(validate=ma.validate.OneOf(STATUSES))
    intent = ma.fields.String(validate=ma.validate.OneOf(INTENTS))
    settled = ma.fields.Boolean()
    reasons = ma.fields.List(ma.fields.Nested(ReasonSchema))
    ahead_in_line = ma.fields.Integer()
    replies = ma.fields.List(ma.fields.Nested(ReplySchema))
    market = ma.fields.Nested(MarketSchema, allow_none=True)


class SignerSchema(ma.Schema):
    address = ma.fields.String()
    state = ma.fields.String(validate=ma.validate.OneOf(("new", *SIGNER_STATES)))
    balance_wei = WeiField()
    next_nonce = ma.fields.Integer()
    latest_nonce = ma.fields.Integer()
    in_flight = ma.fields.Integer()


class SignersSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SignerSchema))


class LimitsSchema(ma.Schema):
    """`value_left_today_wei` and `gas_left_today_wei`: of the last 24 hours' caps, what nothing has used up."""

    max_value_per_tx_wei = WeiField()
    max_value_per_day_wei = WeiField()
    value_left_today_wei = WeiField()
    max_gas_per_tx_wei = WeiField()
    max_gas_per_day_wei = WeiField()
    gas_left_today_wei = WeiField()
    max_gas_limit = ma.fields.Integer(metadata={"description": "Gas units that one message may name."})
