"""Calls to the reward index."""

from collections.abc import Sequence

from apps.clients.audits import AuditedClient
from apps.clients.base import segment
from apps.clients.shapes.rewards import (
    Accrual,
    BatchedClaim,
    Claim,
    ClaimsAnswer,
    Earnings,
    Events,
    Fee,
    NewAccrual,
    NewClaim,
    NewClaimBatch,
    NewStakeDeltas,
    Position,
    Positions,
    RewardPool,
    Settlement,
    StakeDelta,
    StakeDeltasAnswer,
)
from apps.common.shapes import dump


class RewardsClient(AuditedClient):
    service = "rewards"

    def accrue(self, message_id: str, pool_id: str, new_rewards_wei: int, source: str) -> Accrual:
        """Spread a signed reward over all stake of a pool."""
        new = NewAccrual(message_id=message_id, pool_id=pool_id, new_rewards_wei=new_rewards_wei, source=source)
        return self.write(Accrual, "/v1/accruals", dump(new))

    def stake_deltas(self, pool_id: str, deltas: Sequence[StakeDelta]) -> StakeDeltasAnswer:
        """Change up to 10,000 positions, all or nothing. Nothing to change is no call."""
        if not deltas:
            return StakeDeltasAnswer(0, 0)
        new = NewStakeDeltas(pool_id=pool_id, deltas=list(deltas))
        return self.write(StakeDeltasAnswer, "/v1/stake-deltas", dump(new))

    def claim(self, message_id: str, pool_id: str, user_id: str) -> Claim:
        """Move a user's pending reward into their stake."""
        new = NewClaim(message_id=message_id, pool_id=pool_id, user_id=user_id)
        return self.write(Claim, "/v1/claims", dump(new))

    def claims(self, pool_id: str, claims: Sequence[tuple[str, str]]) -> ClaimsAnswer:
        """Claim for many (message_id, user_id), all or nothing. No claim is no call."""
        if not claims:
            return ClaimsAnswer(0, 0)
        items = [BatchedClaim(message_id=message_id, user_id=user_id) for message_id, user_id in claims]
        return self.write(ClaimsAnswer, "/v1/claims/batch", dump(NewClaimBatch(pool_id=pool_id, claims=items)))

    def pool(self, pool_id: str) -> RewardPool:
        return self.read(RewardPool, f"/v1/pools/{segment(pool_id)}")

    def fee(self) -> Fee:
        """The company's part of gains."""
        return self.read(Fee, "/v1/fee")

    def position(self, pool_id: str, user_id: str) -> Position:
        return self.read(Position, f"/v1/positions/{segment(user_id)}", pool_id=pool_id)

    def earnings(self, pool_id: str, user_id: str, start: str, end: str | None = None) -> Earnings:
        """What a user earned over a span, its ends in RFC 3339."""
        return self.read(
            Earnings, f"/v1/positions/{segment(user_id)}/earnings", pool_id=pool_id, **{"from": start, "to": end}
        )

    def positions(self, pool_id: str, after: str | None = None, limit: int = 200) -> Positions:
        return self.read(Positions, "/v1/positions", pool_id=pool_id, after=after, limit=limit)

    def settled(self, pool_id: str, after: int, limit: int = 200) -> Events:
        """Claims and settlements that moved whole wei; `next` passes all other events too."""
        return self.read(Events, "/v1/events", pool_id=pool_id, after=after, limit=limit, settled="true")

    def settle(self, pool_id: str) -> Settlement:
        """Go on with a loss that is being settled."""
        return self.write(Settlement, "/v1/settlements", {"pool_id": pool_id})


def stake_delta(message_id: str, user_id: str, staked_delta_wei: int = 0, exiting_delta_wei: int = 0) -> StakeDelta:
    """One item of a stake-deltas call."""
    return StakeDelta(
        message_id=message_id,
        user_id=user_id,
        staked_delta_wei=staked_delta_wei,
        exiting_delta_wei=exiting_delta_wei,
    )
