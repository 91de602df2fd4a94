"""Calls to the pool: what a BFF does, used by the demo and the tests.

It answers with the JSON as it came, as a BFF in another language would see it.
"""

from typing import Any

from apps.clients.base import Json, ServiceClient, segment


class PoolClient(ServiceClient):
    service = "pool"

    def stake(self, message_id: str, user_id: str, amount_wei: int) -> Json:
        return self.post("/v1/stakes", {"message_id": message_id, "user_id": user_id, "amount_wei": str(amount_wei)})

    def unstake(self, message_id: str, user_id: str, amount_wei: int | str) -> Json:
        return self.post("/v1/unstakes", {"message_id": message_id, "user_id": user_id, "amount_wei": str(amount_wei)})

    def claim_reward(self, message_id: str, user_id: str) -> Json:
        return self.post("/v1/reward-claims", {"message_id": message_id, "user_id": user_id})

    def request(self, request_id: str) -> Json:
        return self.get(f"/v1/requests/{segment(request_id)}")

    def requests(self, **query: Any) -> Json:
        return self.get("/v1/requests", **query)

    def batches(self, **query: Any) -> Json:
        return self.get("/v1/batches", **query)

    def portfolio(self, user_id: str) -> Json:
        return self.get(f"/v1/users/{segment(user_id)}/portfolio")
