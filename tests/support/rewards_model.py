"""The reward index reckoned the slow and obvious way: every accrual writes every position at once.

No index, no snapshots, no lazy settlement: what the service does in one division must come to the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

P = 10**36
GWEI = 10**9

Delta = tuple[str, int, int]
Numbers = dict[str, int]


class Refused(Exception):
    """The step is refused with this code; the model is as it was."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass
class Holding:
    """`owed` is scaled by P; `exact` is the rational share, never rounded, of all that was ever distributed."""

    staked: int = 0
    exiting: int = 0
    owed: int = 0
    claimed: int = 0
    exact: Fraction = Fraction(0)
    share: Fraction = Fraction(0)
    share_moved: Fraction = Fraction(0)

    @property
    def weight(self) -> int:
        return self.staked + self.exiting

    @property
    def worth_scaled(self) -> int:
        return P * self.weight + self.owed


@dataclass
class Model:
    fee_bps: int = 0
    holdings: dict[str, Holding] = field(default_factory=dict)
    index: int = 0
    remainder: int = 0
    accrued: int = 0
    parked: int = 0
    deficit: int = 0
    bearing_fee: int = 0
    greatest_remainder: int = 0
    emptied: int = 0

    @property
    def weight(self) -> int:
        return sum(holding.weight for holding in self.holdings.values())

    def accrue(self, reward: int) -> Numbers:
        gain, loss = max(reward, 0), max(-reward, 0)
        repaid = min(gain, self.deficit)
        bearing = self.bearing_fee + gain - repaid
        # What all gains together owe in fees by now, less what they owed before.
        fee = bearing * self.fee_bps // 10_000 - self.bearing_fee * self.fee_bps // 10_000
        net, weight = reward - fee, self.weight
        borne = -self._most_bearable(loss) if loss else net
        if weight:
            self._distribute(borne)
        else:
            borne = 0
        self.parked += net - borne
        self.accrued += net
        self.deficit += loss - repaid
        self.bearing_fee = bearing
        return self._spread(fee=fee, distributed=borne, parked=net - borne, weight=weight)

    def release(self, amount: int) -> Numbers:
        weight = self.weight
        if not weight:
            raise Refused("nothing_staked")
        if abs(amount) > abs(self.parked) or amount * self.parked <= 0:
            raise Refused("insufficient_parked")
        if not self._can_bear(-amount):
            raise Refused("loss_exceeds_position")
        self._distribute(amount)
        self.parked -= amount
        return self._spread(fee=0, distributed=amount, parked=-amount, weight=weight)

    def stake(self, deltas: Sequence[Delta]) -> Numbers:
        before = {user: Holding(**vars(holding)) for user, holding in self.holdings.items()}
        kept = (self.remainder, self.emptied)
        for user, staked, exiting in deltas:
            holding = self.holdings.setdefault(user, Holding())
            holding.staked += staked
            holding.exiting += exiting
            poor = holding.worth_scaled < 0 and staked + exiting < 0
            if holding.staked < 0 or holding.exiting < 0 or poor:
                self.holdings, (self.remainder, self.emptied) = before, kept
                raise Refused("insufficient_stake")
            self._return_dust(holding)
        self._note_shares()
        return {"applied": len(deltas), "replayed": 0}

    def claim(self, user: str) -> Numbers:
        holding = self.holdings.get(user, Holding())
        if holding.worth_scaled < 0:
            raise Refused("loss_exceeds_position")
        self.holdings[user] = holding
        return {"claimed_wei": self._claim(holding)}

    def pool(self) -> Numbers:
        """As ``GET /v1/pools`` has it."""
        return {
            "weight_wei": self.weight,
            "acc_reward_per_share": self.index,
            "remainder": self.remainder,
            "accrued_wei": self.accrued,
            "claimed_wei": sum(holding.claimed for holding in self.holdings.values()),
            "parked_wei": self.parked,
            "deficit_wei": self.deficit,
        }

    def positions(self) -> dict[str, Numbers]:
        """As ``GET /v1/positions`` has them, each by its user."""
        return {
            user: {
                "staked_wei": holding.staked,
                "exiting_wei": holding.exiting,
                "pending_wei": holding.owed // P,
                "claimed_wei": holding.claimed,
                "reward_debt": holding.weight * self.index - holding.owed,
            }
            for user, holding in self.holdings.items()
        }

    def _step(self, net: int) -> int:
        """Whole scaled units that each wei of weight gets."""
        return (net * P + self.remainder) // self.weight

    def _can_bear(self, loss: int) -> bool:
        """Whether nobody owes more than they have, were all of this loss handed out."""
        step = self._step(-loss)
        return all(holding.worth_scaled + step * holding.weight >= 0 for holding in self.holdings.values())

    def _most_bearable(self, loss: int) -> int:
        """The greatest part of a loss that everybody can bear, found by halving: no formula to get wrong."""
        if not self.weight or self._can_bear(loss):
            return loss
        fits, too_much = 0, loss
        while too_much - fits > 1:
            middle = (fits + too_much) // 2
            fits, too_much = (middle, too_much) if self._can_bear(middle) else (fits, middle)
        return fits

    def _distribute(self, net: int) -> None:
        weight, step = self.weight, self._step(net)
        for holding in self.holdings.values():
            holding.owed += step * holding.weight
            holding.exact += Fraction(net * holding.weight, weight)
        self.index += step
        self.remainder += net * P - step * weight
        self.greatest_remainder = max(self.greatest_remainder, self.remainder)

    def _spread(self, *, fee: int, distributed: int, parked: int, weight: int) -> Numbers:
        index = self.index
        # All of a great loss, and whatever was too great to be borne.
        if distributed <= -GWEI or (weight and distributed <= 0 and parked < 0):
            for holding in self.holdings.values():
                self._claim(holding)
        return {
            "fee_wei": fee,
            "distributed_wei": distributed,
            "parked_wei": parked,
            "acc_reward_per_share": index,
            "weight_wei": weight,
        }

    def _claim(self, holding: Holding) -> int:
        whole = holding.owed // P
        from_exiting = max(-whole - holding.staked, 0)
        holding.staked += whole + from_exiting
        holding.exiting -= from_exiting
        holding.claimed += whole
        holding.owed -= whole * P
        self._return_dust(holding)
        self._note_shares()
        return whole

    def _return_dust(self, holding: Holding) -> None:
        if holding.weight == 0 and holding.owed % P:
            self.emptied += 1
            self.remainder += holding.owed % P
            self.greatest_remainder = max(self.greatest_remainder, self.remainder)
            holding.owed -= holding.owed % P

    def _note_shares(self) -> None:
        weight = self.weight
        for holding in self.holdings.values():
            share = Fraction(holding.weight, weight) if weight else Fraction(0)
            holding.share_moved += abs(share - holding.share)
            holding.share = share
