"""The kinds of movements: what each takes from where to where. Pure.

A side is a user bucket (`available`, `reserved`, `staked`, `unstaking`) or a system account (starts with ``@``).
"""

from dataclasses import dataclass

BUCKETS = ("available", "reserved", "staked", "unstaking")
SYSTEM_ACCOUNTS = ("@custody", "@lido", "@rewards", "@fees", "@gas", "@payouts", "@rounding")
# What the company owes the pool for stETH that is gone: there only once ops have booked a loss to it.
LOSSES = "@losses"


@dataclass(frozen=True)
class Kind:
    """Source and target of a movement's amount."""

    source: str
    target: str

    @property
    def needs_user(self) -> bool:
        return not (self.source.startswith("@") and self.target.startswith("@"))

    def swapped(self) -> "Kind":
        return Kind(self.target, self.source)


REVERSAL = "reversal"
# What a BFF posts: money of its users that came in, or is to go out. Every other kind moves what flows and ops alone may.
BFF_KINDS = frozenset({"deposit", "withdrawal", "withdrawal_cancel", "payout_paid"})

KINDS: dict[str, Kind] = {
    "deposit": Kind("@custody", "available"),
    "withdrawal": Kind("available", "@payouts"),
    "withdrawal_cancel": Kind("@payouts", "available"),
    "payout_paid": Kind("@payouts", "@custody"),
    "gas_float": Kind("@custody", "@gas"),
    "gas_spent": Kind("@gas", "@custody"),
    "stake_reserve": Kind("available", "reserved"),
    "stake_release": Kind("reserved", "available"),
    "stake_confirm": Kind("reserved", "staked"),
    "reward_accrue": Kind("@lido", "@rewards"),
    "reward_drop": Kind("@rewards", "@lido"),
    "fee": Kind("@rewards", "@fees"),
    "reward_compound": Kind("@rewards", "staked"),
    "reward_loss": Kind("staked", "@rewards"),
    "unstake_start": Kind("staked", "unstaking"),
    "unstake_cancel": Kind("unstaking", "staked"),
    "unstake_cut": Kind("unstaking", "@rounding"),
    "unstake_settle": Kind("unstaking", "available"),
    "unstake_shortfall": Kind("unstaking", "@lido"),
    "rounding_loss": Kind("@rounding", "@lido"),
    "rounding_gain": Kind("@lido", "@rounding"),
    "donation": Kind("@lido", "@fees"),
    # What ops decide about things that happened outside the flows (`POST /v1/walk/resolve` of the pool).
    "manual_submit": Kind("@gas", "@fees"),  # the company's ETH, staked by hand
    "manual_claim": Kind("@lido", "@gas"),  # ETH of a withdrawal that no request made
    "company_claim": Kind("@fees", "@gas"),  # ETH of the company's own withdrawal
    "eth_lost": Kind("@gas", "@custody"),  # a claim whose ETH went to another address than custody
    "fees_lost": Kind("@fees", "@lido"),  # stETH gone, borne by the company's fees
    "steth_lost": Kind(LOSSES, "@lido"),  # stETH gone, owed by the company
    "steth_found": Kind("@lido", "@fees"),
    "loss_covered": Kind("@fees", LOSSES),
    "reward_loss_covered": Kind("@fees", "@rewards"),
}


def bucket_changes(kind: Kind, amount_wei: int) -> dict[str, int]:
    """Signed wei per user bucket."""
    changes: dict[str, int] = {}
    if kind.source in BUCKETS:
        changes[kind.source] = -amount_wei
    if kind.target in BUCKETS:
        changes[kind.target] = changes.get(kind.target, 0) + amount_wei
    return changes
