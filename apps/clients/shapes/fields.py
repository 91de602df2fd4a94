"""Marshmallow fields of values that go over the wire as text: addresses, calldata, members of an enum."""

import re
from typing import Any

import marshmallow as ma

from apps.common.states import Status
from apps.common.wire import ADDRESS, MESSAGE_ID, OpenApi, nullable, published

MAX_DATA_BYTES = 128 * 1024  # what nodes accept in one transaction
MAX_MESSAGE_IDS = 100  # of the longest, they fill two thirds of what a request line and headers may hold
_LISTED = MESSAGE_ID.pattern.replace(r"\Z", "(?:,|$)")
_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*", re.ASCII)


class AddressField(ma.fields.String):
    """A 0x address; mixed case is taken as a checksum and checked, for a mistyped address loses money."""

    @property
    def openapi(self) -> OpenApi:
        return {"type": nullable("string", self), "format": "address", "pattern": published(ADDRESS)}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        from eth_utils.address import to_checksum_address  # only the relayer itself needs it

        text = super()._deserialize(value, attr, data, **kwargs)
        if not isinstance(text, str) or not ADDRESS.fullmatch(text):
            raise ma.ValidationError("Not an address: 0x and 40 hex digits.")
        address = str(to_checksum_address(text))
        if text != address and text[2:] not in {text[2:].lower(), text[2:].upper()}:
            raise ma.ValidationError("The checksum of this address is wrong.")
        return address


class DataField(ma.fields.String):
    """Calldata: 0x and an even number of hex digits; lower case inside."""

    @property
    def openapi(self) -> OpenApi:
        return {"type": "string", "maxLength": 2 + 2 * MAX_DATA_BYTES, "pattern": published(_HEX)}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not isinstance(text, str) or not _HEX.fullmatch(text):
            raise ma.ValidationError("Not calldata: 0x and an even number of hex digits.")
        if len(text) > 2 + 2 * MAX_DATA_BYTES:
            raise ma.ValidationError(f"Longer than {MAX_DATA_BYTES} bytes.")
        return text.lower()


class MessageIdsField(ma.fields.String):
    """The names of several messages, comma-separated, as no name has a comma."""

    @property
    def openapi(self) -> OpenApi:
        return {"pattern": f"^{_LISTED}(?:,{_LISTED}){{0,{MAX_MESSAGE_IDS - 1}}}$"}

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else ",".join(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        found = str(super()._deserialize(value, attr, data, **kwargs)).split(",")
        if len(found) > MAX_MESSAGE_IDS or not all(MESSAGE_ID.fullmatch(name) for name in found):
            raise ma.ValidationError(f"Must be 1 to {MAX_MESSAGE_IDS} message_ids, comma-separated.")
        return found


def text_of(values: type[Status]) -> type[ma.fields.Enum[Status]]:
    """The field of an enum that goes over the wire as its text."""

    class TextField(ma.fields.Enum[Status]):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(values, by_value=ma.fields.String, **kwargs)

    return TextField


def several_of(values: type[Status]) -> type[ma.fields.String]:
    """The field of a query that takes one member of an enum, or several, comma-separated."""

    class SeveralField(ma.fields.String):
        @property
        def openapi(self) -> OpenApi:
            one = "|".join(values)
            return {"pattern": f"^(?:{one})(?:,(?:{one}))*$"}

        def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
            return None if value is None else ",".join(value)

        def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
            text = super()._deserialize(value, attr, data, **kwargs)
            try:
                found = [values(part.strip()) for part in str(text).split(",") if part.strip()]
            except ValueError:
                found = []
            if not found:
                raise ma.ValidationError(f"Must be one or more of {', '.join(values)}.")
            return found

    return SeveralField
