"""Elements of a withdrawal: within Lido's bounds whatever the amount, and never a wei more or less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocols.splitting import MAX_ELEMENT_WEI, MIN_ELEMENT_WEI, split

MOST = 100 * MAX_ELEMENT_WEI
NEAR = st.builds(lambda full, rest: full * MAX_ELEMENT_WEI + rest, st.integers(1, 99), st.integers(-101, 101))


@given(st.one_of(st.integers(MIN_ELEMENT_WEI, MOST), NEAR, st.integers(MIN_ELEMENT_WEI, 300)))
def test_split__any_amount__sums_up_within_bounds_and_no_rest_below_the_minimum(amount: int) -> None:
    parts = split(amount)
    assert sum(parts) == amount
    assert all(MIN_ELEMENT_WEI <= part <= MAX_ELEMENT_WEI for part in parts)
    assert len(parts) == -(-amount // MAX_ELEMENT_WEI)  # no more elements, hence no more gas, than needed


@pytest.mark.parametrize("rest", [1, 50, 99])
def test_split__rest_of_1_to_99_wei__taken_from_the_last_full_element(rest: int) -> None:
    assert split(2 * MAX_ELEMENT_WEI + rest) == [MAX_ELEMENT_WEI, MAX_ELEMENT_WEI - (100 - rest), 100]


@given(st.integers(-10, MIN_ELEMENT_WEI - 1))
def test_split__below_the_minimum__refused(amount: int) -> None:
    with pytest.raises(ValueError, match="at least 100 wei"):
        split(amount)
