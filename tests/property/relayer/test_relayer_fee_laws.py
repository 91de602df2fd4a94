"""Whatever a node tells of its blocks: haste never makes cheaper, and a raise replaces whatever was signed before."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from relayer.lifecycle.fees import PERCENTILES, Fees, Market, market, raised

AT = datetime(2026, 1, 1, tzinfo=UTC)
WEI = st.integers(0, 10**15)
# Blocks need not be sorted, whole or numbers: it is a node that says so.
TIP = st.one_of(WEI.map(hex), st.sampled_from(["0x0", "", None, "none"]))
REWARDS = st.lists(st.one_of(st.none(), st.lists(TIP, max_size=len(PERCENTILES))), max_size=10)
SECONDS_LEFT = st.integers(-100, 1_000)


def _market(base_fee_wei: int, rewards: object, proposed: object) -> Market:
    latest = {"baseFeePerGas": hex(base_fee_wei), "timestamp": hex(int(AT.timestamp()))}
    found = market(latest, {"reward": rewards}, proposed, 10**9)
    assert found is not None
    return found


@given(WEI, REWARDS, TIP, SECONDS_LEFT, SECONDS_LEFT)
def test_fees__nearer_deadline__no_lower(base: int, rewards: object, proposed: object, one: int, other: int) -> None:
    now = _market(base, rewards, proposed)
    near, far = (now.fees_by(AT + timedelta(seconds=left)) for left in sorted((one, other)))
    calm = now.fees_by(None)
    assert near.tip_wei >= far.tip_wei >= calm.tip_wei
    assert near.max_fee_wei >= far.max_fee_wei >= calm.max_fee_wei >= calm.tip_wei + 2 * base


@given(WEI, REWARDS, WEI, WEI, SECONDS_LEFT)
def test_raised__at_any_urgency__an_eighth_more_and_the_market(
    base: int, rewards: object, max_fee: int, tip: int, left: int
) -> None:
    wanted = _market(base, rewards, None).fees_by(AT + timedelta(seconds=left))
    found = raised(Fees(max_fee, tip), wanted)
    for new, old, asked in (
        (found.max_fee_wei, max_fee, wanted.max_fee_wei),
        (found.tip_wei, tip, wanted.tip_wei),
    ):
        assert new > old
        assert new * 1000 >= old * 1125
        assert new >= asked
