"""Every limit that a batch will be held against later, in one place, so that it is built to pass them all.

Each limit has one source: Lido's stake limit is the protocol's, value caps are the relayer's (``/v1/limits``), and what
one withdrawal request may hold is a constant of Lido's queue. An unknown limit limits nothing here: whoever owns it
refuses, and the batch is then split (`apps.pool.flows.members.requeue_members`).
"""

from dataclasses import dataclass, replace

from apps.clients.base import CallFailed, CallRefused
from apps.clients.relayer import RelayerClient
from apps.clients.shapes.protocols import LidoState
from apps.ethereum.constants import MAX_ELEMENTS, MAX_WITHDRAWAL_WEI

MAX_UNSTAKE_WEI = MAX_ELEMENTS * MAX_WITHDRAWAL_WEI
TOO_MUCH_TO_UNSTAKE = (
    f"One request asks for at most {MAX_UNSTAKE_WEI} wei, {MAX_ELEMENTS} withdrawals of 1000 ETH; make several."
)


@dataclass(frozen=True)
class Cap:
    """A limit in wei and what its reason is called."""

    wei: int
    code: str
    detail: str


@dataclass(frozen=True)
class Limits:
    """What is known of the limits of a stake; None where it is not known or there is none.

    `stake_max`: what Lido ever takes at once; `stake_now`: what it takes right now. `per_tx`, `per_day`: the relayer's caps;
    `day_left`: of the last 24 hours'.
    """

    stake_max_wei: int | None = None
    stake_now_wei: int | None = None
    per_tx_wei: int | None = None
    per_day_wei: int | None = None
    day_left_wei: int | None = None

    def of_a_stake(self) -> Cap | None:
        """The most that one stake can ever be, while the limits are as they are; None where nothing limits it."""
        caps = []
        if self.stake_max_wei is not None:
            detail = f"The protocol's stake limit is {self.stake_max_wei} wei at most; stake less, or cancel."
            caps.append(Cap(self.stake_max_wei, "stake_above_limit", detail))
        for wei, name in ((self.per_tx_wei, "MAX_VALUE_PER_TX_WEI"), (self.per_day_wei, "MAX_VALUE_PER_DAY_WEI")):
            if wei is not None:
                caps.append(
                    Cap(wei, "stake_above_cap", f"The relayer signs {wei} wei at most ({name}); stake less, or cancel.")
                )
        return min(caps, key=lambda cap: cap.wei, default=None)

    def free_now(self, under_way_wei: int, unsigned_wei: int) -> Cap | None:
        """What batches can share now, beside what is under way to Lido, and of that what is not signed yet; it refills."""
        caps = []
        if self.stake_now_wei is not None:
            detail = f"The protocol takes {self.stake_now_wei} wei right now; it refills with every block."
            caps.append(Cap(max(0, self.stake_now_wei - under_way_wei), "stake_limit", detail))
        if self.day_left_wei is not None:
            detail = f"The relayer signs {self.day_left_wei} wei more until some of the last 24 hours are over."
            caps.append(Cap(max(0, self.day_left_wei - unsigned_wei), "daily_cap", detail))
        return min(caps, key=lambda cap: cap.wei, default=None)

    def with_state(self, state: LidoState) -> "Limits":
        """With Lido's stake limit out of a `lido state`."""
        limit = state.stake_limit
        return replace(self, stake_max_wei=limit.max_wei, stake_now_wei=limit.current_wei)


def relayer_limits(relayer: RelayerClient) -> Limits:
    """The relayer's caps; nothing known where it does not answer, or is of a release that does not tell."""
    try:
        found = relayer.limits()
    except (CallFailed, CallRefused):
        return Limits()
    return Limits(
        per_tx_wei=found.max_value_per_tx_wei,
        per_day_wei=found.max_value_per_day_wei,
        day_left_wei=found.value_left_today_wei,
    )


def elements(amount_wei: int) -> int:
    """How many withdrawals an amount is asked for in: protocols moves wei between the last two where the rest is too
    small, which changes no count."""
    return -(-amount_wei // MAX_WITHDRAWAL_WEI)
