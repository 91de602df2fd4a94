"""Gas limits: the floor of calldata, and the margin over an estimate."""

from apps.ethereum.constants import MAX_GAS
from relayer.signing.policy import least_gas, with_margin


def test_least_gas__calldata__ten_gas_a_token() -> None:
    assert least_gas(b"") == 21_000
    assert least_gas(b"\0") == 21_010
    assert least_gas(b"\1") == 21_040
    assert least_gas(b"\1\0\2") == 21_090


def test_with_margin__estimate__a_quarter_more_and_never_above_the_protocols_cap() -> None:
    assert with_margin(100_000) == 125_000
    assert with_margin(MAX_GAS - 1) == MAX_GAS
