"""Wei: Python ``int`` inside, a decimal string on the wire, a Postgres domain at rest.

JSON numbers lose precision above 2**53 and ``NUMERIC(78,0)`` stores NaN and rounds 1.5 to 2; neither ever carries
money here.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import marshmallow as ma
from sqlalchemy import Dialect
from sqlalchemy.types import TypeDecorator, UserDefinedType

ETHER = 10**18
GWEI = 10**9
MAX_WEI = 2**256

_UNSIGNED = re.compile(r"(?:0|[1-9][0-9]{0,77})", re.ASCII)
_SIGNED = re.compile(r"(?:0|-?[1-9][0-9]{0,77})", re.ASCII)


def parse_wei(text: object) -> int:
    """Return the wei of a decimal string; ``ValueError`` for anything else (numbers, floats, signs, spaces, hex)."""
    if not isinstance(text, str) or not _UNSIGNED.fullmatch(text):
        raise ValueError('Not a whole number of wei as a decimal string, such as "1000000000000000000".')
    value = int(text)
    if value >= MAX_WEI:
        raise ValueError("Must be below 2^256.")
    return value


def parse_signed_wei(text: object) -> int:
    """Like `parse_wei`, and a leading minus is allowed."""
    if not isinstance(text, str) or not _SIGNED.fullmatch(text):
        raise ValueError('Not a whole, possibly negative number of wei as a decimal string, such as "-5".')
    value = int(text)
    if abs(value) >= MAX_WEI:
        raise ValueError("Must be between -2^256 and 2^256.")
    return value


def format_ether(wei: int, digits: int = 6) -> str:
    """Render wei as ETH for people, truncated to `digits` decimals; never parsed back."""
    sign = "-" if wei < 0 else ""
    whole, rest = divmod(abs(wei), ETHER)
    return f"{sign}{whole}.{rest:018d}"[: len(sign) + len(str(whole)) + 1 + digits]


def decimal_fraction(numerator: int, denominator: int, digits: int) -> str | None:
    """A fraction as a decimal text such as ``-0.0321``, rounded down, for rates; None where the denominator is not above 0."""
    if denominator <= 0:
        return None
    scaled = numerator * 10**digits // denominator
    sign, scaled = ("-", -scaled) if scaled < 0 else ("", scaled)
    return f"{sign}{scaled // 10**digits}.{scaled % 10**digits:0{digits}d}"


class WeiField(ma.fields.Field[int]):
    """A wei amount in a body or a query: decimal string outside, ``int`` inside.

    `minimum` is the least amount accepted; the default refuses zero, as no movement of nothing is ever meant.
    """

    def __init__(self, *, minimum: int = 1, maximum: int = MAX_WEI - 1, **kwargs: Any) -> None:
        self.minimum = minimum
        self.maximum = maximum
        super().__init__(**kwargs)

    @property
    def openapi(self) -> dict[str, Any]:
        """What OpenAPI says of it: the digits, at least as many as the minimum has."""
        return {
            "type": ["string", "null"] if self.allow_none else "string",
            "format": "wei",
            "pattern": f"^{self._digits()}$",
        }

    def _digits(self) -> str:
        more = len(str(self.minimum)) - 1
        some = f"[1-9][0-9]{{{more},77}}"
        return f"(?:0|{some})" if self.minimum == 0 else some

    def _serialize(self, value: int | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else str(int(value))

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        try:
            wei = self._parse(value)
        except ValueError as error:
            raise ma.ValidationError(str(error)) from error
        if wei < self.minimum:
            raise ma.ValidationError(f"Must be at least {self.minimum}.")
        if wei > self.maximum:
            raise ma.ValidationError(f"Must be at most {self.maximum}.")
        return wei

    def _parse(self, value: Any) -> int:
        return parse_wei(value)


class SignedWeiField(WeiField):
    """A signed wei amount; zero and negatives are accepted unless `minimum` says otherwise."""

    def __init__(self, *, minimum: int = 1 - MAX_WEI, **kwargs: Any) -> None:
        super().__init__(minimum=minimum, **kwargs)

    def _digits(self) -> str:
        some = "-?[1-9][0-9]{0,77}"
        no_zero = any(isinstance(check, ma.validate.NoneOf) and 0 in check.iterable for check in self.validators)
        return some if no_zero else f"(?:0|{some})"

    def _parse(self, value: Any) -> int:
        return parse_signed_wei(value)


class _Domain(UserDefinedType[Any]):
    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_kw: Any) -> str:
        return self.name


class _IntegerDomain(TypeDecorator[int]):
    """A Postgres domain over bare ``numeric`` that reads and writes Python ``int`` only."""

    impl = _Domain
    cache_ok = True
    domain = "wei"

    def __init__(self) -> None:
        super().__init__(self.domain)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        # bool is an int, and a float or Decimal has already lost or may lose wei before it comes here.
        if type(value) is not int:
            raise TypeError(f"{self.domain} takes int, not {type(value).__name__}")
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else exact_int(value)


class WeiColumn(_IntegerDomain):
    """0 <= wei < 2^256 (domain ``wei``)."""

    domain = "wei"
    cache_ok = True


class SignedWeiColumn(_IntegerDomain):
    """-2^256 < wei < 2^256 (domain ``signed_wei``)."""

    domain = "signed_wei"
    cache_ok = True


class ScaledColumn(_IntegerDomain):
    """A signed integer scaled by 10^36, below 10^116 (domain ``scaled``): 2^256 * 10^36 does not fit 78 digits."""

    domain = "scaled"
    cache_ok = True


def exact_int(value: Any) -> int:
    """Turn a driver's ``Decimal`` into ``int`` and refuse one that carries a fraction."""
    if isinstance(value, Decimal):
        whole = int(value)
        if whole != value:
            raise ValueError("a fraction of a wei reached the program")
        return whole
    return int(value)
