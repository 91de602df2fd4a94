"""Wei in and out: whole numbers as decimal strings, nothing else."""

from decimal import Decimal

import marshmallow as ma
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_mock_engine

from apps.common.wei import (
    ETHER,
    MAX_WEI,
    SignedWeiField,
    WeiColumn,
    WeiField,
    exact_int,
    format_ether,
    parse_signed_wei,
    parse_wei,
)

DIALECT = create_mock_engine("postgresql+psycopg2://", lambda *_: None).dialect
NO_WEI = [
    "",
    " 1",
    "1 ",
    "01",
    "00",
    "+1",
    "-1",
    "1.0",
    "1e18",
    "0x1",
    "NaN",
    "Infinity",
    "١",
    "1_000",
    1,
    1.0,
    True,
    None,
]


@pytest.mark.parametrize("value", [*NO_WEI, str(MAX_WEI), "9" * 78, "9" * 5000])
def test_parse_wei__anything_but_a_whole_decimal_string_below_2_256__refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"wei|2\^256"):
        parse_wei(value)


@pytest.mark.parametrize("value", ["-0", "--1", "+1", "-01", "-1.5", -1, str(-MAX_WEI), str(MAX_WEI)])
def test_parse_signed_wei__no_signed_whole_number__refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"wei|2\^256"):
        parse_signed_wei(value)


@given(st.integers(0, MAX_WEI - 1))
def test_wei__any_amount__comes_back_from_its_text(amount: int) -> None:
    assert parse_wei(str(amount)) == amount
    assert parse_signed_wei(str(-amount)) == -amount


def test_field__zero__refused_unless_allowed() -> None:
    class Body(ma.Schema):
        amount_wei = WeiField(required=True)
        none_wei = WeiField(minimum=0)
        signed_wei = SignedWeiField()

    assert Body().load({"amount_wei": "1", "none_wei": "0", "signed_wei": "-5"}) == {
        "amount_wei": 1,
        "none_wei": 0,
        "signed_wei": -5,
    }
    for wrong in ("0", "-1", 1, "2" * 90):
        with pytest.raises(ma.ValidationError) as refused:
            Body().load({"amount_wei": wrong})
        assert list(refused.value.messages_dict) == ["amount_wei"]
    assert Body().dump({"amount_wei": 10**30}) == {"amount_wei": str(10**30)}


@pytest.mark.parametrize("value", [1.0, Decimal(1), "1", True])
def test_column__anything_but_int__never_reaches_the_database(value: object) -> None:
    with pytest.raises(TypeError, match="takes int"):
        WeiColumn().process_bind_param(value, DIALECT)  # type: ignore[arg-type]


def test_exact_int__a_fraction_of_a_wei__refused() -> None:
    assert exact_int(Decimal("1E+30")) == 10**30
    with pytest.raises(ValueError, match="fraction"):
        exact_int(Decimal("1.5"))


@pytest.mark.parametrize(
    ("wei", "text"),
    [
        (0, "0.000000"),
        (ETHER, "1.000000"),
        (-ETHER // 2, "-0.500000"),
        (1, "0.000000"),
        (1999999999999999999, "1.999999"),
    ],
)
def test_format_ether__for_people__truncated_never_rounded_up(wei: int, text: str) -> None:
    assert format_ether(wei) == text
