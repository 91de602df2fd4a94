"""Calls to the reward index."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.clients.base import AUDIT_TIMEOUT_SEC, ServiceClient, segment


class RewardsClient(ServiceClient):
    service = "rewards"

    def accrue(self, message_id: str, pool_id: str, new_rewards_wei: int, source: str) -> dict[str, Any]:
        body = {
            "message_id": message_id,
            "pool_id": pool_id,
            "new_rewards_wei": str(new_rewards_wei),
            "source": source,
        }
        return self.post("/v1/accruals", body)

    def stake_deltas(self, pool_id: str, deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Change up to 10,000 positions, all or nothing. Nothing to change is no call."""
        if not deltas:
            return {"applied": 0, "replayed": 0}
        return self.post("/v1/stake-deltas", {"pool_id": pool_id, "deltas": list(deltas)})

    def claim(self, message_id: str, pool_id: str, user_id: str) -> dict[str, Any]:
        return self.post("/v1/claims", {"message_id": message_id, "pool_id": pool_id, "user_id": user_id})

    def claims(self, pool_id: str, claims: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Claim for many (message_id, user_id), all or nothing. Nobody is no call."""
        if not claims:
            return {"claimed": 0, "replayed": 0}
        items = [{"message_id": message_id, "user_id": user_id} for message_id, user_id in claims]
        return self.post("/v1/claims/batch", {"pool_id": pool_id, "claims": items})

    def pool(self, pool_id: str) -> dict[str, Any]:
        return self.get(f"/v1/pools/{segment(pool_id)}")

    def position(self, pool_id: str, user_id: str) -> dict[str, Any]:
        return self.get(f"/v1/positions/{segment(user_id)}", pool_id=pool_id)

    def positions(self, pool_id: str, after: str | None = None, limit: int = 200) -> dict[str, Any]:
        return self.get("/v1/positions", pool_id=pool_id, after=after, limit=limit)

    def events(self, pool_id: str, after: int, limit: int = 200) -> dict[str, Any]:
        return self.get("/v1/events", pool_id=pool_id, after=after, limit=limit)

    def audit(self, pool_id: str) -> dict[str, Any]:
        return self.post("/v1/audits", {"pool_id": pool_id}, timeout=AUDIT_TIMEOUT_SEC)


def stake_delta(message_id: str, user_id: str, staked_delta_wei: int = 0, exiting_delta_wei: int = 0) -> dict[str, Any]:
    """One item of a stake-deltas call."""
    return {
        "message_id": message_id,
        "user_id": user_id,
        "staked_delta_wei": str(staked_delta_wei),
        "exiting_delta_wei": str(exiting_delta_wei),
    }
