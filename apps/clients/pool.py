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

    def pay_out(self, message_id: str, user_id: str, amount_wei: int, to: str) -> Json:
        asked = {"message_id": message_id, "user_id": user_id, "amount_wei": str(amount_wei), "to": to}
        return self.post("/v1/payouts", asked)

    def allow_address(self, message_id: str, user_id: str, address: str, label: str | None = None) -> Json:
        asked = {"message_id": message_id, "address": address, "label": label}
        return self.post(f"/v1/users/{segment(user_id)}/payout-addresses", asked)

    def deposit(self, message_id: str, user_id: str, tx_hash: str) -> Json:
        return self.post("/v1/deposits", {"message_id": message_id, "user_id": user_id, "tx_hash": tx_hash})

    def unidentified_deposits(self, **query: Any) -> Json:
        return self.get("/v1/deposits/unidentified", **query)

    def request(self, request_id: str) -> Json:
        return self.get(f"/v1/requests/{segment(request_id)}")

    def requests(self, **query: Any) -> Json:
        return self.get("/v1/requests", **query)

    def batches(self, **query: Any) -> Json:
        return self.get("/v1/batches", **query)

    def portfolio(self, user_id: str) -> Json:
        return self.get(f"/v1/users/{segment(user_id)}/portfolio")
