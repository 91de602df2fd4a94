"""Elements of a withdrawal: within Lido's bounds whatever the amount, and never a wei more or less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.ethereum.constants import MAX_WITHDRAWAL_WEI, MIN_WITHDRAWAL_WEI
from apps.ethereum.splitting import split

MOST = 100 * MAX_WITHDRAWAL_WEI
NEAR = st.builds(lambda full, rest: full * MAX_WITHDRAWAL_WEI + rest, st.integers(1, 99), st.integers(-101, 101))


@given(st.one_of(st.integers(MIN_WITHDRAWAL_WEI, MOST), NEAR, st.integers(MIN_WITHDRAWAL_WEI, 300)))
def test_split__any_amount__sums_up_within_bounds_and_no_rest_below_the_minimum(amount: int) -> None:
    parts = split(amount)
    assert sum(parts) == amount
    assert all(MIN_WITHDRAWAL_WEI <= part <= MAX_WITHDRAWAL_WEI for part in parts)
    assert len(parts) == -(-amount // MAX_WITHDRAWAL_WEI)  # no more elements, hence no more gas, than needed


@pytest.mark.parametrize("rest", [1, 50, 99])
def test_split__rest_of_1_to_99_wei__taken_from_the_last_full_element(rest: int) -> None:
    assert split(2 * MAX_WITHDRAWAL_WEI + rest) == [MAX_WITHDRAWAL_WEI, MAX_WITHDRAWAL_WEI - (100 - rest), 100]


@given(st.integers(-10, MIN_WITHDRAWAL_WEI - 1))
def test_split__below_the_minimum__refused(amount: int) -> None:
    with pytest.raises(ValueError, match="at least 100 wei"):
        split(amount)
